module github.com/signerd/signerd/integration

go 1.26.0

require github.com/signerd/signerd v0.0.0

require golang.org/x/crypto v0.58.0

require (
	github.com/google/renameio/v2 v2.0.2 // indirect
	golang.org/x/sys v0.49.0
)

replace github.com/signerd/signerd => ../
