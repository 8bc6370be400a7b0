#!/bin/sh
# Makes this machine the first member of an etcd cluster, or one more:
#
#     /root/setup/first-boot.sh init
#     /root/setup/first-boot.sh join --signer-ip=ADDRESS
#
# and then is gone, with the folder that it is in. See first-boot(8).
set -eu
dir=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if ! [ -e "$dir/first-boot" ] && [ -e /var/lib/signerd-first-boot/receipt.json ]; then
	# It was ended after all was done, while the folder was being removed.
	rm -f -- "$dir/first-boot.sh"
	rmdir --ignore-fail-on-non-empty -- "$dir"
	echo "first-boot: all was done before."
	exit 0
fi
exec "$dir/first-boot" "$@"
