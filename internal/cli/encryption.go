package cli

import (
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var encryptionCommands = []*command{{
	Command: args.Command{
		Path: []string{"encryption", "format"},
		Operands: []args.Operand{
			imageSpec,
			{Name: "format", Help: "encryption format [possible values: luks1, luks2]"},
			{Name: "passphrase-file", Help: "path of file containing passphrase for unlocking the image"},
		},
		Options: []args.Option{
			poolOption, namespaceOption, imageOption,
			{
				Name: "cipher-alg", Arg: "arg", Help: "encryption algorithm [possible values: aes-128, aes-256 (default)]",
				Check: oneOf("aes-128", "aes-256"),
			},
		},
		Short: "Format image to an encrypted format.",
	},
	run: encryptionFormat,
}}

func encryptionFormat(c *call) (err error) {
	s, err := c.spec(spec.Form{})
	if err != nil {
		return err
	}
	format, path := c.operand(), c.operand()
	switch {
	case format == "":
		return errno.Errorf(syscall.EINVAL, "must specify format.")
	case path == "":
		return errno.Errorf(syscall.EINVAL, "must specify passphrase-file.")
	}
	algorithm := rbd.EncryptionAlgorithmAES256
	if c.String("cipher-alg") == "aes-128" {
		algorithm = rbd.EncryptionAlgorithmAES128
	}
	image, err := c.open(s, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	// The whole file is the passphrase, with a newline at its end if it has one.
	f, err := os.Open(path)
	if err != nil {
		return errno.Wrap(err, "unable to open passphrase file "+path)
	}
	passphrase, err := io.ReadAll(f)
	f.Close()
	defer func() { clear(passphrase[:cap(passphrase)]) }()
	if err != nil {
		return errno.Wrap(err, "unable to read passphrase file "+path)
	}
	var options rbd.EncryptionOptions
	switch format {
	case "luks1":
		options = rbd.EncryptionOptionsLUKS1{Alg: algorithm, Passphrase: passphrase}
	case "luks2":
		options = rbd.EncryptionOptionsLUKS2{Alg: algorithm, Passphrase: passphrase}
	default:
		return errno.Errorf(syscall.EOPNOTSUPP, "unsupported encryption format")
	}
	return errno.Wrap(image.EncryptionFormat(options), "encryption format error")
}
