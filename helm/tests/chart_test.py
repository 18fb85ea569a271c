"""The chart's claims, checked on what Helm itself renders, without a cluster.

Every case of CASES is linted, rendered twice, and validated against the strict schemas of several Kubernetes versions;
then single claims are tested: the restricted Pod Security Standard, what is refused and with which words, and that the
configuration keys of the chart are those of server/src/config.rs.
"""

import pathlib
import re
import sys
import tomllib
import unittest

import helm_python as helm
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "cairn"
KUBERNETES = ["1.27", "1.29", "1.31", "1.33", "1.35", "1.37"]

LEAST = {"image": {"repository": "registry.example/cairn"}, "insecureNoAuth": True}
CASES = {
    "least": {},
    "no persistence": {"persistence": {"enabled": False}},
    "long names": {"fullnameOverride": "a-very-long-name-that-somebody-gave-to-a-small-database-in-production"},
    "by digest": {"image": {"digest": "sha256:" + "0" * 64}},
    "bare": {
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "topologySpread": {"enabled": False},
        "serviceAccount": {"create": False},
    },
    "everything": {
        "commonLabels": {"team": "search"},
        "podLabels": {"team": "search"},
        "podAnnotations": {"example.com/a": "b"},
        "imagePullSecrets": [{"name": "pull"}],
        "extraEnv": [{"name": "RUST_BACKTRACE", "value": "1"}],
        "service": {"type": "LoadBalancer", "port": 80, "annotations": {"a": "b"}},
        "persistence": {"size": "1Ti", "storageClassName": "fast", "annotations": {"a": "b"}},
        "config": {"limits": {"body_bytes_max": 67108864, "writes_max": 8}, "engine": {"seal_rows": 200000}},
        "networkPolicy": {
            "from": [{"namespaceSelector": {"matchLabels": {"rag": "yes"}}}],
            "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "tei"}}}], "ports": [{"port": 80}]}],
        },
        "extraVolumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
        "extraVolumeMounts": [{"name": "models", "mountPath": "/models", "readOnly": True}],
        "topologySpread": {"whenUnsatisfiable": "DoNotSchedule"},
        "nodeSelector": {"disk": "nvme"},
        "tolerations": [{"key": "db", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "high",
    },
}


def merged(base, over):
    out = dict(base)
    for key, value in over.items():
        out[key] = merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def files(values, name="demo"):
    with helm.Chart.load(str(CHART)) as chart:
        return chart.render(values, name=name, namespace="prod")


def manifests(values=None, name="demo"):
    """Rendered objects by kind (and name, where a kind occurs twice)."""
    out = {}
    for path, text in files(merged(LEAST, values or {}), name).items():
        if path.endswith(".txt"):
            continue
        for document in yaml.safe_load_all(text):
            if document:
                key = document["kind"]
                out[f"{key}/{document['metadata']['name']}" if key == "Service" else key] = document
    return out


def pod(values=None):
    return manifests(values)["StatefulSet"]["spec"]["template"]["spec"]


class EveryCase(unittest.TestCase):
    def test_renders_the_same_twice(self):
        for name, values in CASES.items():
            with self.subTest(name):
                self.assertEqual(files(merged(LEAST, values)), files(merged(LEAST, values)))

    def test_is_valid_for_kubernetes(self):
        for name, values in CASES.items():
            for key, manifest in manifests(values).items():
                for version in KUBERNETES:
                    with self.subTest(case=name, object=key, kubernetes=version):
                        kubernetes_validate.validate(manifest, version, strict=True)

    def test_validation_can_fail(self):
        manifest = manifests()["StatefulSet"]
        manifest["spec"]["replicas"] = "one"
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(manifest, KUBERNETES[-1], strict=True)

    def test_names_fit(self):
        for name, values in CASES.items():
            for key, manifest in manifests(values, name="r" * 53).items():
                with self.subTest(case=name, object=key):
                    self.assertLessEqual(len(manifest["metadata"]["name"]), 63)

    def test_selectors_find_the_pods(self):
        for name, values in CASES.items():
            objects = manifests(values)
            labels = objects["StatefulSet"]["spec"]["template"]["metadata"]["labels"].items()
            selectors = [objects["StatefulSet"]["spec"]["selector"]["matchLabels"]]
            selectors += [o["spec"]["selector"] for k, o in objects.items() if k.startswith("Service/")]
            if "PodDisruptionBudget" in objects:
                selectors.append(objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"])
            if "NetworkPolicy" in objects:
                selectors.append(objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"])
            for selector in selectors:
                with self.subTest(case=name, selector=selector):
                    self.assertTrue(selector and selector.items() <= labels)

    def test_helm_lints_it(self):
        found = helm.lint(str(CHART), values=LEAST)
        bad = [m for m in found.get("messages", []) if m.get("severity") in ("error", "ERROR", 3)]
        self.assertEqual(bad, [], found)


class Pod(unittest.TestCase):
    def test_meets_the_restricted_pod_security_standard(self):
        for name, values in CASES.items():
            with self.subTest(name):
                spec = pod(values)
                self.assertFalse({"hostNetwork", "hostPID", "hostIPC"} & spec.keys())
                allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "secret", "name"}
                self.assertTrue(all(set(v) <= allowed for v in spec["volumes"]))
                security = spec["securityContext"]
                self.assertEqual(security["seccompProfile"]["type"], "RuntimeDefault")
                self.assertTrue(security["runAsNonRoot"])
                self.assertNotEqual(security["runAsUser"], 0)
                for container in spec["containers"] + spec.get("initContainers", []):
                    security = container["securityContext"]
                    self.assertFalse(security["allowPrivilegeEscalation"])
                    self.assertEqual(security["capabilities"]["drop"], ["ALL"])
                    self.assertTrue(security["readOnlyRootFilesystem"])
                    self.assertNotIn("privileged", security)

    def test_has_no_credentials_of_the_cluster(self):
        self.assertFalse(pod()["automountServiceAccountToken"])
        self.assertFalse(manifests()["ServiceAccount"]["automountServiceAccountToken"])

    def test_gets_no_service_links(self):
        # A Service named cairn would put CAIRN_PORT and others into the environment, which the server refuses as
        # configuration that it does not know.
        self.assertFalse(pod()["enableServiceLinks"])

    def test_is_probed_on_ports_that_it_has(self):
        container = pod()["containers"][0]
        ports = {p["name"] for p in container["ports"]}
        for probe, path in [("startupProbe", "/readyz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]:
            self.assertIn(container[probe]["httpGet"]["port"], ports)
            self.assertEqual(container[probe]["httpGet"]["path"], path)

    def test_writes_only_where_something_is_mounted(self):
        for values in ({}, {"persistence": {"enabled": False}}, CASES["everything"]):
            spec = pod(values)
            mounted = {m["name"] for m in spec["containers"][0]["volumeMounts"]}
            there = {v["name"] for v in spec["volumes"]}
            claims = manifests(values)["StatefulSet"]["spec"].get("volumeClaimTemplates", [])
            self.assertEqual(mounted, there | {c["metadata"]["name"] for c in claims})

    def test_has_requests_and_a_memory_limit(self):
        resources = pod()["containers"][0]["resources"]
        self.assertTrue({"cpu", "memory"} <= resources["requests"].keys() and "memory" in resources["limits"])

    def test_restarts_when_its_configuration_changes(self):
        def digest(values):
            return manifests(values)["StatefulSet"]["spec"]["template"]["metadata"]["annotations"]["cairn/config-sha256"]

        self.assertEqual(digest({}), digest({"podLabels": {"a": "b"}}))
        self.assertNotEqual(digest({}), digest({"config": {"limits": {"writes_max": 5}}}))


class Configuration(unittest.TestCase):
    def toml(self, values=None):
        return tomllib.loads(manifests(values)["ConfigMap"]["data"]["cairn.toml"])

    def test_is_toml_with_the_types_that_were_given(self):
        given = {"limits": {"body_bytes_max": 67108864}, "log": {"format": "text", "filter": 'a="b\\c"'}}
        toml = self.toml({"config": given})
        self.assertEqual(toml["limits"], given["limits"])
        self.assertEqual(toml["log"], given["log"])
        self.assertIsInstance(toml["limits"]["body_bytes_max"], int)

    def test_models_are_tables_in_tables(self):
        given = {
            "default_embedder": "e5.small",
            "embedders": {
                "e5.small": {"type": "bert", "dir": "/models/e5", "query_prefix": "query: "},
                "far": {"type": "tei", "url": "http://tei", "timeout_ms": 5000, "media": ["image"], "hybrid_weight": 0.25},
            },
            "rerankers": {"late": {"type": "late", "embedder": "e5.small"}},
        }
        toml = self.toml({"config": given, "networkPolicy": {"egress": [{"to": [{"podSelector": {}}]}]}})
        for key, value in given.items():
            self.assertEqual(toml[key], value)

    def test_addresses_match_the_ports_and_the_volume(self):
        toml = self.toml()
        container = pod()["containers"][0]
        ports = {p["name"]: p["containerPort"] for p in container["ports"]}
        self.assertEqual(toml["listen"], f"0.0.0.0:{ports['api']}")
        self.assertEqual(toml["metrics_listen"], f"0.0.0.0:{ports['metrics']}")
        self.assertIn(toml["data_dir"], [m["mountPath"] for m in container["volumeMounts"]])
        self.assertIs(toml["insecure_no_auth"], True)

    def test_keys_are_those_of_the_server(self):
        """A key that the server gains, loses or renames must be followed by values.schema.json."""
        source = (ROOT / "server/src/config.rs").read_text()

        def fields(struct):
            body = re.search(rf"pub struct {struct} \{{(.*?)\n\}}", source, re.S).group(1)
            return set(re.findall(r"^    pub (\w+):", body, re.M))

        with helm.Chart.load(str(CHART)) as chart:
            config = chart.schema["properties"]["config"]["properties"]
        the_charts_own = {"listen", "metrics_listen", "data_dir", "insecure_no_auth"}
        self.assertEqual(set(config) | the_charts_own, fields("Config"))
        for table, struct in [("limits", "Limits"), ("engine", "EngineConfig"), ("log", "LogConfig")]:
            self.assertEqual(set(config[table]["properties"]), fields(struct), table)


class Refused(unittest.TestCase):
    def refused(self, values, *words):
        with self.assertRaises(helm.HelmError) as caught:
            files(values)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_more_than_one_replica(self):
        self.refused(merged(LEAST, {"replicaCount": 3}), "replicaCount must be 1, got 3", "no replication")

    def test_no_image(self):
        self.refused({"insecureNoAuth": True}, "image.repository is required")

    def test_latest(self):
        self.refused(merged(LEAST, {"image": {"tag": "latest"}}), "must not be latest")

    def test_open_service_without_saying_so(self):
        self.refused(merged(LEAST, {"insecureNoAuth": False}), "no authentication", "networkPolicy")

    def test_less_grace_than_draining_takes(self):
        self.refused(merged(LEAST, {"config": {"drain_ms": 55000}}), "must be at least 65", "got 60")

    def test_a_service_that_the_network_policy_keeps_away(self):
        config = {"rerankers": {"far": {"type": "tei", "url": "http://tei"}}}
        self.refused(merged(LEAST, {"config": config}), "config.rerankers.far is a service", "networkPolicy.egress")
        manifests({"config": config, "networkPolicy": {"enabled": False}})

    def test_typos_anywhere(self):
        for values in (
            {"replicas": 1},
            {"image": {"repo": "x"}},
            {"config": {"limits": {"body_byte_max": 1}}},
            {"persistence": {"sise": "1Gi"}},
            {"networkPolicy": {"from": []}},
            {"service": {"port": "80"}},
        ):
            with self.subTest(values):
                self.refused(merged(LEAST, values), "schema")


if __name__ == "__main__":
    result = unittest.main(exit=False, verbosity=1).result
    sys.exit(not result.wasSuccessful())
