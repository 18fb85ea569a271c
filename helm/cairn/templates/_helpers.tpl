{{/* Names are cut at 52: a StatefulSet adds an ordinal and a controller hash, and a label holds 63. */}}
{{- define "cairn.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "cairn.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "cairn.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "cairn.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "cairn.selector" -}}
app.kubernetes.io/name: {{ include "cairn.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "cairn.labels" -}}
{{ include "cairn.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "cairn.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "cairn.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "cairn.image" -}}
{{- $repository := required "image.repository is required: no image of Cairn is published yet, build your own and name it" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* What cannot be said in the schema. */}}
{{- define "cairn.check" -}}
{{- if gt (int .Values.replicaCount) 1 -}}
{{- fail (printf "replicaCount must be 1, got %d: this version of Cairn has no replication, so that further pods would be separate databases behind one Service" (int .Values.replicaCount)) -}}
{{- end -}}
{{- if not .Values.insecureNoAuth -}}
{{- fail "insecureNoAuth must be true: this version of Cairn has no authentication, whoever reaches the Service may read, write and delete. Say that you know, and use networkPolicy to say who reaches it" -}}
{{- end -}}
{{- $grace := int .Values.terminationGracePeriodSeconds -}}
{{- $needed := add 10 (div (int (default 10000 .Values.config.drain_ms)) 1000) -}}
{{- if lt $grace (int $needed) -}}
{{- fail (printf "terminationGracePeriodSeconds must be at least %d (config.drain_ms and 10 s), got %d: the kubelet would kill a server that still drains" $needed $grace) -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.egress) -}}
{{- range $kind := list "embedders" "rerankers" -}}
{{- range $name, $model := default dict (get $.Values.config $kind) -}}
{{- if hasKey $model "url" -}}
{{- fail (printf "config.%s.%s is a service, and the NetworkPolicy lets nothing out: name it (and DNS) in networkPolicy.egress, or set networkPolicy.enabled=false" $kind $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.image.tag "latest" -}}
{{- fail "image.tag must not be latest: an unplanned restart would be an unplanned upgrade" -}}
{{- end -}}
{{- end -}}

{{/*
A dict of scalars, and of one level of tables, as TOML. Not `toToml`: values come through JSON, so that it writes 10000 as
10000.0, which the server refuses. Strings are quoted as JSON, whose escapes are TOML's too.
*/}}
{{- define "cairn.toml" -}}
{{- range $key, $value := . }}
{{- if not (kindIs "map" $value) }}
{{ $key }} = {{ include "cairn.scalar" $value }}
{{- end }}
{{- end }}
{{- range $table, $entries := . }}
{{- if kindIs "map" $entries }}

[{{ $table }}]
{{- range $key, $value := $entries }}
{{ $key | quote }} = {{ include "cairn.scalar" $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "cairn.scalar" -}}
{{- if kindIs "map" . -}}
{ {{- range $i, $key := keys . | sortAlpha }}{{ if $i }},{{ end }} {{ $key }} = {{ include "cairn.scalar" (get $ $key) }}{{ end }} }
{{- else if and (kindIs "float64" .) (eq . (floor .)) -}}
{{- int64 . -}}
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}
