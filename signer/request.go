package signer

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"slices"

	"github.com/signerd/signerd/internal/wire"
)

// Request is a certificate signing request whose signature was checked: proof
// that whoever made it holds the private key of PublicKey. Of what it says of
// itself nothing else is kept. It comes from ParseRequest.
type Request struct{ key PublicKey }

// Key gives the request's public key.
func (r Request) Key() PublicKey { return r.key }

// ParseRequest reads a certificate signing request (PKCS #10, RFC 2986) as a
// client sends it: PEM (RFC 7468), or base64 of PEM or DER in any wrapping.
// The error wraps ErrRequest and may be shown to the client.
func ParseRequest(data []byte) (Request, error) {
	der, err := decodeRequest(data)
	if err != nil {
		return Request{}, fmt.Errorf("%w: %v", ErrRequest, err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return Request{}, fmt.Errorf("%w: not a PKCS #10 certificate request: make one with openssl req -new", ErrRequest)
	}
	if weakSignature(csr.SignatureAlgorithm) {
		return Request{}, fmt.Errorf("%w: signed with %v; use SHA-256 or better", ErrRequest, csr.SignatureAlgorithm)
	}
	// The key's own rules come first: they bound what the signature check costs.
	key, err := encodedPublicKey(csr.PublicKey, csr.RawSubjectPublicKeyInfo)
	if err != nil {
		return Request{}, err
	}
	if err := csr.CheckSignature(); err != nil {
		return Request{}, fmt.Errorf("%w: its signature does not fit its public key", ErrRequest)
	}
	return Request{key}, nil
}

func weakSignature(algorithm x509.SignatureAlgorithm) bool {
	switch algorithm {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512,
		x509.PureEd25519:
		return false
	}
	return true
}

// decodeRequest gives the DER inside the transport's layers.
func decodeRequest(data []byte) ([]byte, error) {
	switch {
	case len(data) > wire.MaxRequest:
		return nil, fmt.Errorf("longer than %d bytes", wire.MaxRequest)
	case len(bytes.TrimSpace(data)) == 0:
		return nil, fmt.Errorf("empty: send it on stdin, base64 < client.csr | ssh signer@HOST NAME")
	case bytes.Contains(data, []byte(pemBegin)):
		return decodePEM(data)
	}
	raw, err := decodeBase64(data)
	if err != nil {
		return nil, fmt.Errorf("neither base64 nor PEM: send base64 < client.csr")
	}
	if bytes.Contains(raw, []byte(pemBegin)) {
		return decodePEM(raw)
	}
	return raw, nil
}

func decodeBase64(data []byte) ([]byte, error) {
	if bytes.ContainsAny(data, " \t") {
		data = slices.DeleteFunc(slices.Clone(data), func(b byte) bool { return b == ' ' || b == '\t' })
	}
	// The decoder passes over \r and \n.
	return base64.StdEncoding.Strict().AppendDecode(nil, data)
}

// decodePEM accepts one block with text before it, as openssl req -text and
// certtool write it (RFC 7468, 5.2), and nothing but blanks after it.
func decodePEM(data []byte) ([]byte, error) {
	if n := bytes.Count(data, []byte(pemBegin)); n != 1 {
		return nil, fmt.Errorf("%d PEM blocks; send exactly one request", n)
	}
	preamble, _, _ := bytes.Cut(data, []byte(pemBegin))
	block, rest := pem.Decode(data[len(preamble):])
	switch {
	case block == nil:
		return nil, fmt.Errorf("a broken PEM block; was it cut?")
	case block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST":
		return nil, fmt.Errorf("a PEM block of type %.40q; send a CERTIFICATE REQUEST", block.Type)
	case len(block.Headers) > 0:
		return nil, fmt.Errorf("a PEM block with headers (RFC 7468 has none)")
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, fmt.Errorf("something follows the request; send exactly one request")
	}
	return block.Bytes, nil
}
