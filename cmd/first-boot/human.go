package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
)

// human is the person at the terminal.
type human struct {
	terminal io.ReadWriter
}

// findHuman gives the person at the terminal; nil if nobody is there.
func findHuman() *human {
	if !isTerminal(os.Stdin) {
		return nil
	}
	terminal, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil
	}
	return &human{terminal}
}

// knows asks whether a host key is the right one, as ssh does.
func (h *human) knows(ctx context.Context, host, fingerprint string) bool {
	answer, err := h.answer(ctx, "The host key of the signer at %s is not known.\nIts fingerprint is %s; init printed it.\nGo on (yes/no)? ", host, fingerprint)
	return err == nil && answer == "yes"
}

// recipient asks who can open the backup of the signer.
func (h *human) recipient(ctx context.Context) (string, error) {
	return h.answer(ctx, "Who can open the backup of the signer, when this machine is lost? Paste an age recipient (age1...)\n"+
		"or an SSH public key whose private half is not on this machine; Enter alone: no backup now.\nRecipient: ")
}

// answer gives the line that the person types. The error is why there is none: nobody is
// there any more, or ctx ended.
func (h *human) answer(ctx context.Context, question string, args ...any) (string, error) {
	if _, err := fmt.Fprintf(h.terminal, question, args...); err != nil {
		return "", err
	}
	type line struct {
		text string
		err  error
	}
	answers := make(chan line, 1)
	go func() {
		text, err := bufio.NewReader(h.terminal).ReadString('\n')
		answers <- line{strings.TrimSpace(text), err}
	}()
	select {
	case answer := <-answers:
		return answer.text, answer.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}
