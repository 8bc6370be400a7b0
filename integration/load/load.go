// Package load writes to a cluster at a steady rate and counts what fails, as a
// careful client sees it.
package load

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// A write is tried for this long, and then again until it counts as lost.
const (
	attempt = 2 * time.Second
	giveUp  = 10 * time.Second
)

// Load is writes under way.
type Load struct {
	client *clientv3.Client
	prefix string // of its keys
	stop   chan struct{}
	group  sync.WaitGroup

	mu      sync.Mutex
	report  Report
	written map[string]string
	last    time.Time // when a write succeeded last
}

// Report is what became of them.
type Report struct {
	Writes       int
	FirstFailed  int           // writes whose first attempt failed
	Lost         int           // writes that never succeeded, or are missing
	Missing      int           // writes that succeeded, and were not there at the end
	LongestWrite time.Duration // from the first attempt to success
	LongestGap   time.Duration // between two successes
	Errors       map[string]int
}

func (r Report) String() string {
	return fmt.Sprintf("%d writes, %d first attempts failed, %d lost, longest write %s, longest gap %s %v", r.Writes, r.FirstFailed, r.Lost,
		r.LongestWrite.Round(time.Millisecond), r.LongestGap.Round(time.Millisecond), r.Errors)
}

// started counts the loads of this process.
var started atomic.Int32

// Start begins to write, perSecond times a second, whatever became of the write
// before (an open loop). Every write has a key of its own.
func Start(endpoints []string, config *tls.Config, perSecond int) (*Load, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, TLS: config, Logger: zap.NewNop(),
		// Without it a client goes on choosing a member that is cut off.
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
	})
	if err != nil {
		return nil, err
	}
	l := &Load{client: client, prefix: fmt.Sprintf("load/%d-%d/", os.Getpid(), started.Add(1)), stop: make(chan struct{}), written: map[string]string{}, report: Report{Errors: map[string]int{}}}
	if err := l.write(l.prefix + "warm"); err != nil {
		return nil, fmt.Errorf("the cluster does not take writes: %w", err)
	}
	l.report, l.last = Report{Errors: map[string]int{}}, time.Now()
	l.group.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-l.stop:
				return
			case <-tick.C:
				l.group.Go(func() { _ = l.write(fmt.Sprintf("%s%08d", l.prefix, n)) }) // the report has it
			}
		}
	})
	return l, nil
}

func (l *Load) write(key string) error {
	began := time.Now()
	for try := 0; ; try++ {
		ctx, cancel := context.WithTimeout(context.Background(), attempt)
		_, err := l.client.Put(ctx, key, began.Format(time.RFC3339Nano))
		cancel()
		took := time.Since(began)
		l.mu.Lock()
		if try == 0 {
			l.report.Writes++
		}
		if err == nil {
			l.report.LongestWrite = max(l.report.LongestWrite, took)
			l.report.LongestGap = max(l.report.LongestGap, time.Since(l.last))
			l.last = time.Now()
			l.written[key] = began.Format(time.RFC3339Nano)
			l.mu.Unlock()
			return nil
		}
		l.report.Errors[err.Error()]++
		if try == 0 {
			l.report.FirstFailed++
		}
		if took > giveUp {
			l.report.Lost++
			l.mu.Unlock()
			return err
		}
		l.mu.Unlock()
		<-time.After(50 * time.Millisecond)
	}
}

// Stop ends the writes, waits for those under way, and reads every one back that
// succeeded: one that is not there counts as lost.
func (l *Load) Stop() (Report, error) {
	close(l.stop)
	l.group.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	read, err := l.client.Get(ctx, l.prefix, clientv3.WithPrefix())
	if err != nil {
		return l.report, err
	}
	there := map[string]string{}
	for _, kv := range read.Kvs {
		there[string(kv.Key)] = string(kv.Value)
	}
	for key, value := range l.written {
		if there[key] != value {
			l.report.Lost++
			l.report.Missing++
		}
	}
	return l.report, l.client.Close()
}
