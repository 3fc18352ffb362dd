#!/bin/sh
# Gives the node's pods addresses of the node's range, and routes those of other nodes to them: what kindnetd does in
# kind's own images. Runs in the node's root; TOKEN is that of a ServiceAccount that may list nodes.
set -eu
address='.status.addresses[?(@.type=="InternalIP")].address'
template='{range .items[*]}{.metadata.name} {.spec.podCIDR} {'$address'}{"\n"}{end}'
while :; do
  kubectl --server="https://$CONTROL_PLANE_ENDPOINT" --certificate-authority=/etc/kubernetes/pki/ca.crt \
    --token="$TOKEN" get nodes -o jsonpath="$template" |
    while read -r name range address; do
      [ -n "$address" ] || continue
      if [ "$name" = "$NODE" ]; then
        config=/etc/cni/net.d/10-pods.conflist
        if [ ! -e "$config" ]; then
          mkdir -p /etc/cni/net.d
          cat >"$config.new" <<END
{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [
    {
      "type": "ptp",
      "ipMasq": false,
      "ipam": {"type": "host-local", "ranges": [[{"subnet": "$range"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
END
          mv "$config.new" "$config"
        fi
      else
        ip route replace "$range" via "$address"
      fi
    done
  sleep 5
done
