#!/bin/bash
# What signerd is measured against: the same job behind sshd's ForceCommand,
# with bash and openssl. The state is in the directory of this script.
set -euo pipefail
name=$SSH_ORIGINAL_COMMAND
[[ $name =~ ^kubemaster-[a-z0-9-]{1,40}$ ]] || { echo "bad name" >&2; exit 2; }
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
base64 -d > "$work/csr"
openssl req -in "$work/csr" -noout -verify 2>/dev/null || { echo "bad request" >&2; exit 3; }
cat > "$work/ext" <<EXT
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectAltName = DNS:$name
EXT
openssl x509 -req -in "$work/csr" -days 1 -CA "$here/ca.crt" -CAkey "$here/ca.key" \
	-set_serial "0x$(openssl rand -hex 16)" -extfile "$work/ext" 2>/dev/null
