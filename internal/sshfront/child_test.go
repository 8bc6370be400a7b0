package sshfront

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// childVariable names the part of a test that a process of its own plays.
const childVariable = "SSHFRONT_TEST_CHILD"

// inChild runs work in the process that startChild started for the calling test,
// and says whether this is it.
func inChild(name string, work func()) bool {
	if os.Getenv(childVariable) != name {
		return false
	}
	work()
	return true
}

type child struct {
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr bytes.Buffer
}

// startChild runs the calling test again in a process of its own.
func startChild(t *testing.T, name string) *child {
	t.Helper()
	c := &child{cmd: exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.timeout", "30s")}
	c.cmd.Env = append(os.Environ(), childVariable+"="+name)
	c.cmd.Stderr = &c.stderr
	c.stdout = bufio.NewReader(must(c.cmd.StdoutPipe()))
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	return c
}

// line gives the next line that the child prints.
func (c *child) line() (string, error) {
	line, err := c.stdout.ReadString('\n')
	return strings.TrimSpace(line), err
}

// wait gives all that it printed, and how it ended.
func (c *child) wait() (string, error) {
	killer := time.AfterFunc(30*time.Second, func() { _ = c.cmd.Process.Kill() })
	defer killer.Stop()
	rest, _ := io.ReadAll(c.stdout)
	err := c.cmd.Wait()
	return string(rest) + c.stderr.String(), err
}
