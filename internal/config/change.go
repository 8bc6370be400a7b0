package config

import (
	"fmt"

	"go.yaml.in/yaml/v4"
)

// Change gives a signerd.yaml with another listen and other etcd endpoints, where they are
// not empty. The rest stays, comments too.
func Change(text []byte, listen string, etcd []string) ([]byte, error) {
	if listen == "" && len(etcd) == 0 {
		return text, nil
	}
	var document yaml.Node
	if err := yaml.Load(text, &document); err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	root := &document
	if root.Kind == yaml.DocumentNode && len(root.Content) == 1 {
		root = root.Content[0]
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("reading the configuration: it is no mapping of keys to values")
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		value := root.Content[i+1]
		switch key := root.Content[i].Value; {
		case key == "listen" && listen != "":
			value.SetString(listen)
		case key == "etcd" && len(etcd) > 0:
			if err := value.Encode(etcd); err != nil {
				return nil, fmt.Errorf("changing the configuration: %w", err)
			}
		}
	}
	return yaml.Dump(&document)
}
