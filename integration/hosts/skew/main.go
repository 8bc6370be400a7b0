// Skew shifts the wall clock that the processes of one test host see.
//
//	skew PID SECONDS
//
// PID is the host's PID 1, as seen from here.  Linux has no namespace for
// CLOCK_REALTIME, and statically linked programs ignore LD_PRELOAD; but nearly
// every program asks the vDSO for the time.  Skew traces every process of
// PID's pid namespace and, at each execve, before the new program has run one
// instruction, replaces three functions of its private copy of the vDSO
// (clock_gettime, gettimeofday, time) with ones that make the system call and
// add SECONDS.  It runs until the host ends; started again with another value,
// it takes the place of the first.  PID 1 itself keeps the true time: its
// calendar timers are armed in the kernel, which knows nothing of the shift.
//
// Not shifted: the times of files, timers and waits with an absolute
// CLOCK_REALTIME deadline, programs that make the system call themselves, and
// 32-bit programs.
package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

const (
	seize, interrupt, listen             = 0x4206, 0x4207, 0x4208
	optFork, optVfork, optClone, optExec = 2, 4, 8, 16
	evExec, evStop                       = 4, 128
	wall                                 = 0x40000000
)

func ptrace(req, pid int, data uintptr) error {
	if _, _, e := syscall.Syscall6(syscall.SYS_PTRACE, uintptr(req), uintptr(pid), 0, data, 0, 0); e != 0 {
		return e
	}
	return nil
}

// patch rewrites the vDSO of pid, which must be stopped or about to be.
func patch(pid int, offset int64) error {
	if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); strings.HasSuffix(exe, "/systemd/systemd") {
		return nil
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return err
	}
	var lo, hi uint64
	for _, l := range strings.Split(string(maps), "\n") {
		if strings.HasSuffix(l, "[vdso]") {
			_, _ = fmt.Sscanf(l, "%x-%x", &lo, &hi)
		}
	}
	if lo == 0 {
		return nil // a kernel thread, or a process on its way out
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close() //nolint:errcheck // writes go through at once
	image := make([]byte, hi-lo)
	if _, err := mem.ReadAt(image, int64(lo)); err != nil {
		return err
	}
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return err
	}
	syms, err := f.DynamicSymbols()
	if err != nil {
		return err
	}
	off := binary.LittleEndian.AppendUint64(nil, uint64(offset))
	stubs := map[string][]byte{
		"__vdso_clock_gettime": append([]byte{
			0xb8, 228, 0, 0, 0, //     mov  eax, SYS_clock_gettime
			0x0f, 0x05, //             syscall
			0x85, 0xc0, //             test eax, eax
			0x75, 0x1d, //             jnz  end
			0x85, 0xff, //             test edi, edi           CLOCK_REALTIME
			0x74, 0x0a, //             jz   add
			0x83, 0xff, 5, //          cmp  edi, 5             CLOCK_REALTIME_COARSE
			0x74, 0x05, //             jz   add
			0x83, 0xff, 11, //         cmp  edi, 11            CLOCK_TAI
			0x75, 0x0f, //             jnz  end
			0x48, 0xb8}, append(off, // add: movabs rax, offset
			0x48, 0x01, 0x06, //       add  [rsi], rax
			0x31, 0xc0, //             xor  eax, eax
			0xc3)...), //              end: ret
		"__vdso_gettimeofday": append([]byte{
			0xb8, 96, 0, 0, 0, //      mov  eax, SYS_gettimeofday
			0x0f, 0x05, //             syscall
			0x48, 0x85, 0xff, //       test rdi, rdi
			0x74, 0x0f, //             jz   end
			0x48, 0xba}, append(off, // movabs rdx, offset
			0x48, 0x01, 0x17, //       add  [rdi], rdx
			0x90, 0x90, //
			0xc3)...), //              end: ret
		"__vdso_time": append([]byte{
			0xb8, 201, 0, 0, 0, //     mov  eax, SYS_time
			0x57,       //             push rdi
			0x31, 0xff, //             xor  edi, edi
			0x0f, 0x05, //             syscall
			0x5f,                    //             pop  rdi
			0x48, 0xba}, append(off, // movabs rdx, offset
			0x48, 0x01, 0xd0, //       add  rax, rdx
			0x48, 0x85, 0xff, //       test rdi, rdi
			0x74, 0x03, //             jz   end
			0x48, 0x89, 0x07, //       mov  [rdi], rax
			0xc3)...), //              end: ret
	}
	for _, s := range syms {
		if b := stubs[s.Name]; b != nil {
			if uint64(len(b)) > s.Size {
				return fmt.Errorf("%s has only %d bytes, need %d", s.Name, s.Size, len(b))
			}
			if _, err := mem.WriteAt(b, int64(lo+s.Value)); err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
		}
	}
	return nil
}

func main() {
	runtime.LockOSThread() // ptrace belongs to one thread
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: skew PID SECONDS")
		os.Exit(2)
	}
	init := os.Args[1]
	seconds, err := strconv.ParseFloat(os.Args[2], 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	offset := int64(seconds)
	ns, err := os.Readlink("/proc/" + init + "/ns/pid")
	if err != nil {
		fmt.Fprintln(os.Stderr, "skew:", err)
		os.Exit(1)
	}
	// Take hold of every thread; again until a pass finds no new one.
	have, todo := map[int]bool{}, map[int]bool{}
	for found := true; found; {
		found = false
		procs, _ := filepath.Glob("/proc/[0-9]*")
		for _, p := range procs {
			if n, err := os.Readlink(p + "/ns/pid"); err != nil || n != ns {
				continue
			}
			tasks, _ := filepath.Glob(p + "/task/[0-9]*")
			for _, t := range tasks {
				tid, _ := strconv.Atoi(filepath.Base(t))
				if have[tid] {
					continue
				}
				if ptrace(seize, tid, optFork|optVfork|optClone|optExec) == nil {
					have[tid], found = true, true
					if filepath.Base(t) == filepath.Base(p) {
						todo[tid] = true // one patch a process; its threads share it
						_ = ptrace(interrupt, tid, 0)
					}
				}
			}
		}
	}
	fmt.Printf("skew: %d threads of pid namespace %s, %+ds\n", len(have), ns, offset)
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, wall, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return // nobody is left to wait for
		}
		if !ws.Stopped() {
			continue
		}
		sig, ev := ws.StopSignal(), int(ws)>>16
		if ev == evExec || todo[pid] { // a forked child needs none: it has a copy of its parent's
			delete(todo, pid)
			if err := patch(pid, offset); err != nil && !os.IsNotExist(err) {
				fmt.Fprintf(os.Stderr, "skew: pid %d: %v\n", pid, err)
			}
		}
		switch {
		case ev == evStop && (sig == syscall.SIGSTOP || sig == syscall.SIGTSTP || sig == syscall.SIGTTIN || sig == syscall.SIGTTOU):
			_ = ptrace(listen, pid, 0) // a real job-control stop: leave it stopped
		case ev != 0:
			_ = ptrace(syscall.PTRACE_CONT, pid, 0)
		default:
			_ = ptrace(syscall.PTRACE_CONT, pid, uintptr(sig)) // pass the signal on
		}
	}
}
