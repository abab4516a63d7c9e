package stream

// Pending is work that was begun. Calling it, once, waits for the result.
type Pending[T any] func() (T, error)

// Begin does work while others go on.
func Begin[T any](work func() (T, error)) Pending[T] {
	type result struct {
		value T
		err   error
	}
	c := make(chan result, 1)
	go func() {
		value, err := work()
		c <- result{value, err}
	}()
	return func() (T, error) {
		r := <-c
		return r.value, r.err
	}
}

// InOrder keeps up to limit pieces of work under way and hands the results to
// take one by one in the order in which the pieces were put. put calls begin
// as soon as there is room for one more. The first error ends it: of a piece,
// of take, of produce, which has to return when put gives one.
func InOrder[T any](limit int, produce func(put func(begin func() Pending[T]) error) error, take func(T) error) error {
	var underWay []Pending[T]
	var failed error
	next := func() {
		value, err := underWay[0]()
		underWay = underWay[1:]
		if err == nil && failed == nil {
			err = take(value)
		}
		if failed == nil {
			failed = err
		}
	}
	err := produce(func(begin func() Pending[T]) error {
		if len(underWay) >= max(limit, 1) {
			next()
		}
		if failed == nil {
			underWay = append(underWay, begin())
		}
		return failed
	})
	// Also after an error: what was begun works on memory that the caller has.
	for len(underWay) > 0 {
		next()
	}
	if failed == nil {
		failed = err
	}
	return failed
}
