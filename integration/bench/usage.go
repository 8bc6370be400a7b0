package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// tree gives a process and what it started, as far as that runs. taskset has
// become the server by then: exec keeps the number.
func tree(pid int) ([]procfs.Proc, error) {
	all, err := procfs.AllProcs()
	if err != nil {
		return nil, err
	}
	children := map[int][]procfs.Proc{}
	var found []procfs.Proc
	for _, p := range all {
		if p.PID == pid {
			found = append(found, p)
		}
		if stat, err := p.Stat(); err == nil { // it may have ended
			children[stat.PPID] = append(children[stat.PPID], p)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("process %d is gone", pid)
	}
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i].PID]...)
	}
	return found, nil
}

// cpu gives the processor time of a process and all that it started. One that
// starts nothing is read to the nanosecond (clock_getcpuclockid(3)); else the
// kernel's ticks are added up, of those that run and those that ended.
func cpu(pid int) (time.Duration, error) {
	processes, err := tree(pid)
	if err != nil {
		return 0, err
	}
	root, err := processes[0].Stat()
	if err != nil {
		return 0, err
	}
	if len(processes) == 1 && root.CUTime == 0 && root.CSTime == 0 {
		const ofProcess = 2 // CPUCLOCK_SCHED
		var now unix.Timespec
		err := unix.ClockGettime(int32(^pid<<3|ofProcess), &now)
		return time.Duration(now.Nano()), err
	}
	var ticks uint64
	for _, p := range processes {
		if stat, err := p.Stat(); err == nil { // it may have ended
			ticks += uint64(stat.UTime) + uint64(stat.STime) + uint64(stat.CUTime) + uint64(stat.CSTime)
		}
	}
	const perSecond = 100 // USER_HZ (proc(5)), the same on all of Linux
	return time.Duration(ticks) * time.Second / perSecond, nil
}

// memory gives the resident memory of a process and all it started, in bytes.
func memory(pid int) (int64, error) {
	processes, err := tree(pid)
	var sum int64
	for _, p := range processes {
		if stat, err := p.Stat(); err == nil {
			sum += int64(stat.ResidentMemory())
		}
	}
	return sum, err
}

// settled waits until a server has no children but those it began with: the
// time of a process counts for its parent when it has ended.
func settled(pid int) error {
	for range 500 {
		processes, err := tree(pid)
		if err != nil {
			return err
		}
		if len(processes) == 1 {
			return nil
		}
		<-time.After(10 * time.Millisecond)
	}
	return errors.New("the server's children do not end")
}

// peak looks at a server's memory until the context ends, and then gives the
// most that it saw.
func peak(ctx context.Context, pid int) func() int64 {
	var most atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if now, err := memory(pid); err == nil {
				most.Store(max(most.Load(), now))
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() int64 {
		<-done
		return most.Load()
	}
}
