//go:build race

package sshfront

const raceEnabled = true
