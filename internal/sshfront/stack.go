package sshfront

// stackSize is about what a handshake or a signature takes of a stack.
const stackSize = 8 << 10

// growStack makes the calling goroutine's stack that large while it is shallow.
// Grown as it is needed it would be copied several times, with all its frames.
//
//go:noinline
func growStack() {
	var room [stackSize]byte
	use(&room)
}

//go:noinline
func use(*[stackSize]byte) {}
