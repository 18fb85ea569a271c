#!/usr/bin/env bash
# Makes the certificates of the TLS test: an authority of our own, one that signed nothing here, and a certificate for the
# name localhost. They are valid from 2020 to 2120, so that no clock ends the test. The keys of the authorities are not kept.
set -euo pipefail
cd "$(dirname "$0")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cat >"$scratch/ca.conf" <<CONF
[ca]
default_ca = test
[test]
dir = $scratch
new_certs_dir = $scratch
database = $scratch/index
serial = $scratch/serial
default_md = sha256
policy = any
default_startdate = 20200101000000Z
default_enddate = 21200101000000Z
[any]
commonName = supplied
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[host]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost
CONF
: >"$scratch/index"
echo 01 >"$scratch/serial"

# KEY NAME EXTENSIONS OUT SIGNER...: a new key, and a certificate for it.
certify() {
    local key=$1 name=$2 extensions=$3 out=$4
    shift 4
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$key" 2>/dev/null
    openssl req -new -key "$key" -subj "/CN=$name" -out "$scratch/request"
    openssl ca -batch -notext -config "$scratch/ca.conf" -extensions "$extensions" -in "$scratch/request" -out "$out" "$@" 2>/dev/null
}
certify "$scratch/ours" "Cairn test authority" authority ours.pem -selfsign -keyfile "$scratch/ours"
certify "$scratch/stranger" "Strange test authority" authority stranger.pem -selfsign -keyfile "$scratch/stranger"
certify localhost.key localhost host localhost.pem -cert ours.pem -keyfile "$scratch/ours"
chmod 644 localhost.key
