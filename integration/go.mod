module github.com/signerd/signerd/integration

go 1.26.0

require github.com/signerd/signerd v0.0.0

require (
	github.com/zmap/zcrypto v0.0.0-20230310154051-c8b263fd8300
	github.com/zmap/zlint/v3 v3.6.1
	golang.org/x/crypto v0.58.0
)

require (
	github.com/hashicorp/errwrap v1.0.0 // indirect
	github.com/hashicorp/go-multierror v1.1.1 // indirect
	github.com/pelletier/go-toml v1.9.3 // indirect
	github.com/weppos/publicsuffix-go v0.30.0 // indirect
	go.yaml.in/yaml/v4 v4.0.0 // indirect
	golang.org/x/net v0.61.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)

require (
	github.com/google/renameio/v2 v2.0.2 // indirect
	golang.org/x/sys v0.49.0
)

replace github.com/signerd/signerd => ../
