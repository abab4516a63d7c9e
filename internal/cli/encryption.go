package cli

import (
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
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
	var passphrase []byte
	defer func() { clear(passphrase) }()
	first := librbd.Release < 18 // newer ones open the image before the file
	if first {
		if passphrase, err = readPassphrase(path); err != nil {
			return err
		}
	}
	image, err := c.open(s, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	if !first {
		if passphrase, err = readPassphrase(path); err != nil {
			return err
		}
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

// readPassphrase reads a file, which may be a descriptor: /dev/fd/3. The whole
// of it is the passphrase, with a newline at its end if it has one.
func readPassphrase(path string) ([]byte, error) {
	name := path
	if librbd.Release >= 18 {
		name = "'" + path + "'"
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, errno.Wrap(err, "unable to open passphrase file "+name)
	}
	defer f.Close()
	passphrase, err := io.ReadAll(f)
	return passphrase, errno.Wrap(err, "unable to read passphrase file "+name)
}

// encryptionOptions unlock an image for a command that changes it.
var encryptionOptions = since(18,
	args.Option{
		Name: "encryption-format", Arg: "arg", Repeat: true,
		Help:  "encryption format (luks, luks1, luks2)\n[default: luks]",
		Check: oneOf("luks", "luks1", "luks2"),
	},
	args.Option{
		Name: "encryption-passphrase-file", Arg: "arg", Repeat: true,
		Help: "path to file containing passphrase for\nunlocking the image",
	},
)

// passphrases reads encryptionOptions, where there are any: those of the image
// itself first, then those of its parents.
func (c *call) passphrases() (list []librbd.Passphrase, err error) {
	formats, files := c.StringSlice("encryption-format"), c.StringSlice("encryption-passphrase-file")
	if len(formats) > 0 && len(formats) != len(files) {
		return nil, errno.Errorf(syscall.EINVAL, "encryption formats count does not match passphrase files count")
	}
	for i, file := range files {
		p := librbd.Passphrase{Format: librbd.LUKS}
		if len(formats) > 0 {
			p.Format = map[string]librbd.EncryptionFormat{"luks": librbd.LUKS, "luks1": librbd.LUKS1, "luks2": librbd.LUKS2}[formats[i]]
		}
		if p.Text, err = readPassphrase(file); err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// unlock makes an image be written as what it is encrypted from.
func unlock(image *rbd.Image, passphrases []librbd.Passphrase) error {
	if len(passphrases) == 0 {
		return nil
	}
	defer func() {
		for _, p := range passphrases {
			clear(p.Text)
		}
	}()
	return errno.Wrap(librbd.LoadEncryption(image, passphrases), "encryption load failed")
}
