package wire

import "testing"

func TestParseSigner(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.11": "10.0.0.11:22", "10.0.0.11:2222": "10.0.0.11:2222", "fd00::11": "[fd00::11]:22", "[fd00::11]": "[fd00::11]:22",
		"[fd00::11]:2222": "[fd00::11]:2222", "Leader.example": "leader.example:22", "leader.example:1": "leader.example:1",
	} {
		if got, err := ParseSigner(text); err != nil || got != want {
			t.Errorf("%q is %q, %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", ":22", "10.0.0.11:", "10.0.0.11:0", "10.0.0.11:65536", "10.0.0.11:ssh", "a b", "signer@10.0.0.11", "[fd00::11", "10.0.0.256"} {
		if got, err := ParseSigner(text); err == nil {
			t.Errorf("%q is %q", text, got)
		}
	}
}

func TestParseHostKey(t *testing.T) {
	const good = "SHA256:0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
	if got, err := ParseHostKey(good); err != nil || got != good {
		t.Errorf("%q is %q, %v", good, got, err)
	}
	for _, text := range []string{"", good[7:], good + "=", good[:len(good)-1], "MD5:" + good[7:], good + "\n"} {
		if got, err := ParseHostKey(text); err == nil {
			t.Errorf("%q is %q", text, got)
		}
	}
}
