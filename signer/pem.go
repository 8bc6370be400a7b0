package signer

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
)

// pemBegin begins every PEM block (RFC 7468, 3).
const pemBegin = "-----BEGIN "

// parseCertificate reads the only certificate of a PEM file; text before it,
// as openssl x509 -text writes it, is passed over.
func parseCertificate(data []byte) (*x509.Certificate, error) {
	certificates, err := ParseCertificates(data)
	if err != nil {
		return nil, err
	}
	if len(certificates) != 1 {
		return nil, fmt.Errorf("%d certificates in the file; it must hold the CA's alone", len(certificates))
	}
	return certificates[0], nil
}

// ReadCertificates reads all certificates of a file, as ParseCertificates does. The
// error names the file.
func ReadCertificates(path string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	certificates, err := ParseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return certificates, nil
}

// ParseCertificates reads all certificates of a PEM file. At least one must be
// there, and nothing but certificates.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	var certificates []*x509.Certificate
	blocks := bytes.Count(data, []byte(pemBegin))
	for len(bytes.TrimSpace(data)) > 0 {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a PEM block of type %q among the certificates", block.Type)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the certificate does not parse: %v", err)
		}
		certificates = append(certificates, certificate)
		data = rest
	}
	switch {
	case len(certificates) == 0:
		return nil, errors.New("no PEM certificate in the file")
	case len(certificates) != blocks:
		return nil, fmt.Errorf("%d PEM blocks begin in the file and %d are whole; was it cut?", blocks, len(certificates))
	}
	return certificates, nil
}

// EncodeCertificate writes a certificate's DER as PEM.
func EncodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// ParsePrivateKey reads a key as openssl, kubeadm and cfssl write it: PKCS #8,
// SEC 1 or PKCS #1, with an EC PARAMETERS block before it or not.
func ParsePrivateKey(data []byte) (crypto.Signer, error) {
	var key any
	for key == nil {
		block, rest := pem.Decode(data)
		if block == nil {
			return nil, errors.New("no PEM private key in the file")
		}
		if strings.Contains(block.Type, "ENCRYPTED") || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return nil, errors.New("the key is encrypted: decrypt it first, openssl pkey -in FILE -out PLAIN")
		}
		var err error
		switch data = rest; block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		}
		if err != nil {
			// Not the parser's own words: they could quote the key.
			return nil, errors.New("the private key does not parse")
		}
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T does not sign", key)
	}
	return signer, nil
}

func encodePrivateKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// EncodeCertificates gives certificates as PEM.
func EncodeCertificates(certificates []*x509.Certificate) []byte {
	var text []byte
	for _, c := range certificates {
		text = append(text, EncodeCertificate(c.Raw)...)
	}
	return text
}

// splitPEM parts the certificates of a PEM file from the private key.
func splitPEM(data []byte) (certificates, key []byte, err error) {
	for {
		block, rest := pem.Decode(data)
		switch {
		case block == nil && len(bytes.TrimSpace(data)) > 0:
			return nil, nil, errors.New("something in it is no PEM: send the CA's certificate and its key, cat ca.crt ca.key")
		case block == nil:
			return certificates, key, nil
		case block.Type == "CERTIFICATE":
			certificates = append(certificates, pem.EncodeToMemory(block)...)
		default:
			key = append(key, pem.EncodeToMemory(block)...)
		}
		data = rest
	}
}
