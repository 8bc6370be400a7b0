package bootstrap

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/authkeys"
)

// rootKeys is whose keys may ask the signer if nothing else is said.
const rootKeys = "/root/.ssh/authorized_keys"

// everything is what a key may ask that may log in as root here, and so could
// have the CA's key itself.
const everything = `permit="get-*,kubemaster-*,etcd-*,release *,remove *,rotate *,rotate prepare --from"`

// authorizedKeys makes the signer's authorized_keys: the file at path as it is,
// or root's, in which each key without a permit or command may ask everything.
func authorizedKeys(path string) ([]byte, error) {
	source := path
	if path == "" {
		source = rootKeys
	}
	data, err := os.ReadFile(source)
	if errors.Is(err, fs.ErrNotExist) && path == "" {
		return nil, fmt.Errorf("nobody could ask the signer: root has no authorized_keys; give --authorize FILE, authorized_keys(5)")
	} else if err != nil {
		return nil, fmt.Errorf("reading the keys that may ask the signer: %w; give others with --authorize FILE", err)
	}
	if path == "" {
		data = grantEverything(data)
	}
	keys, err := authkeys.Parse(source, data)
	if err != nil {
		return nil, fmt.Errorf("the keys that may ask the signer: %w; give others with --authorize FILE", err)
	}
	if keys.Len() == 0 {
		return nil, fmt.Errorf("nobody could ask the signer: %s lists no key; give --authorize FILE, authorized_keys(5)", source)
	}
	return data, nil
}

// grantEverything adds a permit to the lines of an authorized_keys file that do
// not say what their key may ask.
func grantEverything(data []byte) []byte {
	out := bytes.NewBufferString("# Made by first-boot init of " + rootKeys + ". Who may log in as root here may ask everything.\n")
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		key, comment, options, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err == nil && restricted(options) && foreign(line) {
			out.WriteString("# left out, since its command is none of the signer's: " + line + "\n")
			continue
		}
		if err != nil || restricted(options) { // what does not parse is told by authkeys
			out.WriteString(line + "\n")
			continue
		}
		fmt.Fprintf(out, "%s %s %s\n", strings.Join(append([]string{everything}, options...), ","),
			strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))), comment)
	}
	return out.Bytes()
}

// foreign says whether a line's forced command is of another program, as in the
// images of clouds: command="echo 'Please login as ...'".
func foreign(line string) bool {
	_, err := authkeys.Parse(rootKeys, []byte(line+"\n"))
	return err != nil && strings.Contains(strings.ToLower(line), "command=") && !strings.Contains(strings.ToLower(line), "permit=")
}

// restricted says whether options say what the key may ask.
func restricted(options []string) bool {
	for _, o := range options {
		name, _, _ := strings.Cut(strings.ToLower(o), "=")
		if name == "permit" || name == "command" || name == "cert-authority" {
			return true
		}
	}
	return false
}
