package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
)

// human is the person at the terminal.
type human struct {
	terminal *os.File
}

// findHuman gives the person at the terminal; nil if nobody is there.
func findHuman() *human {
	terminal, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil || !isTerminal(os.Stdin) {
		return nil
	}
	return &human{terminal}
}

// knows asks whether a host key is the right one, as ssh does.
func (h *human) knows(ctx context.Context, host, fingerprint string) bool {
	return h.answer(ctx, "The host key of the signer at %s is not known.\nIts fingerprint is %s; init printed it.\nGo on (yes/no)? ", host, fingerprint) == "yes"
}

// recipient asks who can open the backup of the signer.
func (h *human) recipient(ctx context.Context) string {
	return h.answer(ctx, "Who can open the backup of the signer, when this machine is lost? Paste an age recipient (age1...)\n"+
		"or an SSH public key whose private half is not on this machine; Enter alone: no backup now.\nRecipient: ")
}

// answer is empty when ctx ends before there is one.
func (h *human) answer(ctx context.Context, question string, args ...any) string {
	_, _ = fmt.Fprintf(h.terminal, question, args...)
	answers := make(chan string, 1)
	go func() {
		answer, _ := bufio.NewReader(h.terminal).ReadString('\n')
		answers <- strings.TrimSpace(answer)
	}()
	select {
	case answer := <-answers:
		return answer
	case <-ctx.Done():
		return ""
	}
}
