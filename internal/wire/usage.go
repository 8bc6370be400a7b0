package wire

// UsageText is the answer to help, and what a session without a command gets
// on stderr.
const UsageText = `signerd: a certificate authority for one etcd cluster

  ssh signer@HOST get-peers                    client URLs of the cluster
  ssh signer@HOST get-topology                 name=peerURL of every member
  ssh signer@HOST get-certificate > ca.crt     the CA certificates to trust
  ssh signer@HOST get-status                   the cluster's state, as JSON

  base64 < client.csr | ssh signer@HOST "$HOSTNAME" > client.crt
                                               a client certificate, 24 hours
  base64 < member.csr | ssh signer@HOST etcd-ID=ADDRESS[,ADDRESS...] > member.crt
                                               a member certificate, 30 days

  ssh signer@HOST release NAME                 let another key have the name
  ssh signer@HOST remove etcd-ID               remove a member
  ssh signer@HOST rotate status                where a rotation of the CA stands,
                                               and what to type next

Exit status: 0 done; 2 bad name; 3 bad request; 64 usage; 70 our fault;
75 try again; 77 this key may not.
`
