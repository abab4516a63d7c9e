// Package directory names images in the directory of a pool that are not
// there. That is enough for what lists names, and takes no time.
package directory

import (
	"fmt"

	"github.com/ceph/go-ceph/rados"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
)

// Fill names n images in a pool that there is.
func Fill(c *cluster.Cluster, pool string, n int, name func(i int) string) error {
	names := make(map[string][]byte)
	for i := range n {
		id := fmt.Sprintf("%012x", i)
		names["name_"+name(i)], names["id_"+id] = text(id), text(name(i))
	}
	// In the cluster's network, which the threads of librados are born into.
	return c.Do(func() error {
		conn, err := rados.NewConn()
		if err != nil {
			return err
		}
		defer conn.Shutdown()
		if err := conn.ReadConfigFile(c.Conf()); err != nil {
			return err
		}
		if err := conn.Connect(); err != nil {
			return err
		}
		io, err := conn.OpenIOContext(pool)
		if err != nil {
			return err
		}
		defer io.Destroy()
		return io.SetOmap("rbd_directory", names)
	})
}

// text is a string as Ceph encodes it.
func text(s string) []byte {
	return append([]byte{byte(len(s)), 0, 0, 0}, s...)
}
