package signer

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/signerd/signerd/internal/wire"
)

// hostile are classes of bad requests, each with a valid neighbour that differs
// in the one thing. A class may have several members.
func hostile() map[string]struct{ bad, good [][]byte } {
	der := newRequestDER(p256Key, nil)
	text := requestPEM(der)
	flat := []byte(base64.StdEncoding.EncodeToString(text))
	one := func(data ...[]byte) [][]byte { return data }
	return map[string]struct{ bad, good [][]byte }{
		"empty":                          {one(nil, []byte("\n"), []byte(" \r\n\t")), one(text)},
		"binary DER":                     {one(der), one(wrap(der, 76, "\n"))},
		"random bytes":                   {one(must(randomBytes(500))), one(text)},
		"random bytes in base64":         {one(wrap(must(randomBytes(500)), 76, "\n")), one(wrap(der, 76, "\n"))},
		"base64 of base64":               {one(wrap(flat, 76, "\n")), one(flat)},
		"base64 cut":                     {one(flat[:len(flat)-5], flat[:len(flat)/2]), one(flat)},
		"base64 with a stray character":  {one(append([]byte("#"), flat...)), one(append([]byte(" "), flat...))},
		"URL-safe base64":                {one([]byte(base64.URLEncoding.EncodeToString(append(bytes.Clone(der), 0xfb, 0xef, 0xff)))), one(flat)},
		"base64 with bits after the end": {one(looseBase64(der)), one(wrap(der, len(der)*2, ""))},
		"PEM cut in its end line":        {one(text[:len(text)-10]), one(text)},
		"PEM without end":                {one(text[:len(text)/2]), one(text)},
		"PEM without begin":              {one(text[30:]), one(text)},
		"PEM body broken":                {one(bytes.Replace(text, []byte("MI"), []byte("!!"), 1)), one(text)},
		"PEM with headers":               {one(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Headers: map[string]string{"A": "b"}, Bytes: der})), one(text)},
		"two requests":                   {one(append(bytes.Clone(text), text...), wrap(append(bytes.Clone(text), text...), 76, "\n")), one(text)},
		"a request and a key":            {one(append(bytes.Clone(text), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"...)), one(text)},
		"text after the request":         {one(append(bytes.Clone(text), "rm -rf /\n"...)), one(append(bytes.Clone(text), '\n'))},
		"NUL after the request":          {one(append(bytes.Clone(text), 0)), one(text)},
		"trailing bytes in the DER":      {one(wrap(append(bytes.Clone(der), 0), 76, "\n"), requestPEM(append(bytes.Clone(der), 0x30, 0))), one(requestPEM(der))},
		"truncated DER":                  {one(wrap(der[:len(der)-1], 76, "\n"), wrap(der[:10], 76, "\n")), one(wrap(der, 76, "\n"))},
		"a certificate instead":          {one(selfSignedPEM()), one(text)},
		"a private key instead":          {one(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(p256Key))})), one(text)},
		"a public key instead":           {one(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(p256Key.Public()))})), one(text)},
		"an SSH key instead":             {one([]byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDc3 root@host\n")), one(text)},
		"a shell's error instead":        {one([]byte("base64: client.csr: No such file or directory\n")), one(text)},
		"too long":                       {one(bytes.Repeat([]byte("A"), wire.MaxRequest+1), append(bytes.Clone(text), bytes.Repeat([]byte("\n"), wire.MaxRequest)...)), one(append(bytes.Clone(text), bytes.Repeat([]byte("\n"), wire.MaxRequest-len(text))...))},
		"signature of another key":       {one(requestPEM(resigned(der))), one(requestPEM(der))},
		"signature bit flipped":          {one(requestPEM(flipLast(der))), one(requestPEM(der))},
		"content changed after signing":  {one(requestPEM(bytes.Replace(der, []byte("anything"), []byte("anythinG"), 1))), one(requestPEM(der))},
		"signed with SHA-1": {one(requestPEM(newRequestDER(rsa2048, func(c *x509.CertificateRequest) { c.SignatureAlgorithm = x509.SHA1WithRSA }))),
			one(requestPEM(newRequestDER(rsa2048, func(c *x509.CertificateRequest) { c.SignatureAlgorithm = x509.SHA256WithRSA })))},
		"RSA below 2048 bits":           {one(rawRSARequest(1024, 65537), rawRSARequest(2047, 65537)), one(rawRSARequest(2048, 65537))},
		"RSA above 8192 bits":           {one(hugeRSARequest(8200), hugeRSARequest(16384)), one(rawRSARequest(4096, 65537))},
		"RSA exponent 3":                {one(rawRSARequest(2048, 3)), one(rawRSARequest(2048, 65539))},
		"RSA exponent 1 or even":        {one(oddRSARequest(1), oddRSARequest(65538)), one(rawRSARequest(2048, 65537))},
		"RSA modulus with small factor": {one(smallFactorRequest(3), smallFactorRequest(751)), one(rawRSARequest(2048, 65537))},
		"RSA key with something more":   {one(paddedRSARequest()), one(rawRSARequest(2048, 65537))},
		"P-224":                         {one(requestPEM(newRequestDER(must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)), nil))), one(text)},
		"X25519":                        {one(requestPEM(exchangeKeyRequest())), one(text)},
		"an unknown kind of key":        {one(requestPEM(unknownKeyRequest(der))), one(text)},
		"a point that is not on P-256":  {one(requestPEM(offCurveRequest(der))), one(text)},
	}
}

func TestHostileRequests(t *testing.T) {
	classes := hostile()
	if len(classes) < 30 {
		t.Fatalf("%d classes, want 30", len(classes))
	}
	for name, class := range classes {
		for _, bad := range class.bad {
			if _, err := ParseRequest(bad); !errors.Is(err, ErrRequest) {
				t.Errorf("%s: %v; want a refusal", name, err)
			} else if text := err.Error(); strings.ContainsAny(text, "\n\x00") || len(text) > 300 {
				t.Errorf("%s: the refusal is not one line: %q", name, text)
			}
		}
		for _, good := range class.good {
			if _, err := ParseRequest(good); err != nil {
				t.Errorf("%s: the valid neighbour: %v", name, err)
			}
		}
	}
}

func randomBytes(n int) ([]byte, error) {
	data := make([]byte, n)
	_, err := rand.Read(data)
	return data, err
}

// csr is a PKCS #10 request as ASN.1, for those that x509 would not make.
type csr struct {
	Info      asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

type csrInfo struct {
	Version    int
	Subject    asn1.RawValue
	PublicKey  asn1.RawValue
	Attributes asn1.RawValue `asn1:"optional,tag:0"`
}

func parseCSR(der []byte) (c csr, info csrInfo) {
	must(asn1.Unmarshal(der, &c))
	must(asn1.Unmarshal(c.Info.FullBytes, &info))
	return c, info
}

// withKey puts another SubjectPublicKeyInfo into a request; its signature is
// then made by sign, or wrong.
func withKey(der, spki []byte, algorithm asn1.ObjectIdentifier, sign func(info []byte) []byte) []byte {
	c, info := parseCSR(der)
	info.PublicKey = asn1.RawValue{FullBytes: spki}
	raw := must(asn1.Marshal(info))
	c.Info = asn1.RawValue{FullBytes: raw}
	c.Algorithm = pkix.AlgorithmIdentifier{Algorithm: algorithm, Parameters: asn1.NullRawValue}
	signature := sign(raw)
	c.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	return must(asn1.Marshal(c))
}

var sha256WithRSA = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}

// rawRSARequest signs by hand, so that the key may be one that crypto/rsa
// refuses.
func rawRSARequest(bits, exponent int) []byte {
	n, d := rsaNumbers(bits, exponent)
	return rsaRequest(n, d, exponent)
}

func rsaNumbers(bits, exponent int) (n, d *big.Int) {
	e := big.NewInt(int64(exponent))
	for {
		p, q := must(rand.Prime(rand.Reader, bits/2)), must(rand.Prime(rand.Reader, bits-bits/2))
		phi := new(big.Int).Mul(new(big.Int).Sub(p, big.NewInt(1)), new(big.Int).Sub(q, big.NewInt(1)))
		n = new(big.Int).Mul(p, q)
		if d = new(big.Int).ModInverse(e, phi); d != nil && n.BitLen() == bits {
			return n, d
		}
	}
}

func rsaRequest(n, d *big.Int, exponent int) []byte {
	return rsaRequestWith(struct{ N, E *big.Int }{n, big.NewInt(int64(exponent))}, n, d)
}

// rsaRequestWith makes a request for a public key as ASN.1, signed with d.
func rsaRequestWith(public any, n, d *big.Int) []byte {
	key := must(asn1.Marshal(public))
	spki := must(asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, Parameters: asn1.NullRawValue}, asn1.BitString{Bytes: key, BitLength: 8 * len(key)}}))
	return requestPEM(withKey(newRequestDER(p256Key, nil), spki, sha256WithRSA, func(info []byte) []byte {
		sum := sha256.Sum256(info)
		// EMSA-PKCS1-v1_5 (RFC 8017, 9.2).
		prefix := []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}
		digest := slices.Concat(prefix, sum[:])
		size := (n.BitLen() + 7) / 8
		padded := append([]byte{0, 1}, bytes.Repeat([]byte{0xff}, size-len(digest)-3)...)
		padded = append(append(padded, 0), digest...)
		return new(big.Int).Exp(new(big.Int).SetBytes(padded), d, n).FillBytes(make([]byte, size))
	}))
}

// hugeRSARequest has a modulus nobody factored and a signature that is wrong:
// it must be refused before that is looked at.
func hugeRSARequest(bits int) []byte {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	n.Add(n, must(rand.Int(rand.Reader, n))).SetBit(n, 0, 1)
	return rsaRequest(n, big.NewInt(3), 65537)
}

func oddRSARequest(exponent int) []byte {
	n, d := rsaNumbers(2048, 65537)
	return rsaRequest(n, d, exponent)
}

func smallFactorRequest(factor int64) []byte {
	q := must(rand.Prime(rand.Reader, 2048))
	p := big.NewInt(factor)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, big.NewInt(1)), new(big.Int).Sub(q, big.NewInt(1)))
	d := new(big.Int).ModInverse(big.NewInt(65537), phi)
	if d == nil {
		return smallFactorRequest(factor)
	}
	return rsaRequest(new(big.Int).Mul(p, q), d, 65537)
}

// paddedRSARequest has a third number in the key, which parsers pass over: the
// same key with another fingerprint.
func paddedRSARequest() []byte {
	n, d := rsaNumbers(2048, 65537)
	return rsaRequestWith(struct{ N, E, More *big.Int }{n, big.NewInt(65537), big.NewInt(7)}, n, d)
}

func resigned(der []byte) []byte {
	other := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	c, _ := parseCSR(der)
	sum := sha256.Sum256(c.Info.FullBytes)
	signature := must(ecdsa.SignASN1(rand.Reader, other, sum[:]))
	c.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	return must(asn1.Marshal(c))
}

func flipLast(der []byte) []byte {
	flipped := bytes.Clone(der)
	flipped[len(flipped)-1] ^= 1
	return flipped
}

func exchangeKeyRequest() []byte {
	spki := must(x509.MarshalPKIXPublicKey(must(ecdh.X25519().GenerateKey(rand.Reader)).Public()))
	return withKey(newRequestDER(p256Key, nil), spki, sha256WithRSA, func([]byte) []byte { return make([]byte, 64) })
}

func unknownKeyRequest(der []byte) []byte {
	spki := must(asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 9999}}, asn1.BitString{Bytes: []byte{1, 2, 3}, BitLength: 24}}))
	return withKey(der, spki, sha256WithRSA, func([]byte) []byte { return make([]byte, 64) })
}

func offCurveRequest(der []byte) []byte {
	_, info := parseCSR(der)
	spki := bytes.Clone(info.PublicKey.FullBytes)
	spki[len(spki)-1] ^= 1
	return withKey(der, spki, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, func([]byte) []byte { return make([]byte, 64) })
}

// looseBase64 sets bits behind the last byte, which a lax decoder drops.
func looseBase64(der []byte) []byte {
	for len(der)%3 != 1 {
		der = append(bytes.Clone(der), 0)
	}
	text := []byte(base64.StdEncoding.EncodeToString(der))
	text[len(text)-3]++
	return text
}

func selfSignedPEM() []byte {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}}
	return EncodeCertificate(must(x509.CreateCertificate(rand.Reader, template, template, p256Key.Public(), p256Key)))
}
