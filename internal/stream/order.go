package stream

import "errors"

// errStopped ends a producer whose results nobody wants any more.
var errStopped = errors.New("stopped")

// InOrder does many pieces of work, limit of them at a time, and hands the
// results to take one by one in the order in which the pieces were put. The
// first error ends it: of produce, of a piece, of take.
func InOrder[T any](limit int, produce func(put func(work func() (T, error)) error) error, take func(T) error) error {
	type result struct {
		value T
		err   error
	}
	// The one that is waited for is outside of the queue.
	queue := make(chan chan result, max(limit, 1)-1)
	stop := make(chan struct{})
	done := make(chan error)
	go func() {
		var err error
		for c := range queue {
			r := <-c
			if err == nil {
				if err = r.err; err == nil {
					err = take(r.value)
				}
				if err != nil {
					close(stop)
				}
			}
		}
		done <- err
	}()
	err := produce(func(work func() (T, error)) error {
		c := make(chan result, 1)
		select {
		case <-stop:
			return errStopped
		case queue <- c:
		}
		go func() {
			value, err := work()
			c <- result{value, err}
		}()
		return nil
	})
	close(queue)
	// What stopped it says more than that it stopped.
	if failed := <-done; failed != nil {
		return failed
	}
	return err
}
