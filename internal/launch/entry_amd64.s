#include "textflag.h"

// opt_rbd_entry is the program's first instruction when it is linked with -E opt_rbd_entry. It asks for the
// disposition of each signal and for the first three descriptors, notes which are ignored and which are closed, and goes
// on to where a Go program starts.
TEXT opt_rbd_entry(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	SUBQ	$32, SP			// the kernel's struct sigaction
	XORQ	R12, R12		// bit N-1: signal N is ignored
	MOVQ	$1, R13			// N
next:
	MOVQ	$13, AX			// rt_sigaction(N, NULL, SP, 8)
	MOVQ	R13, DI
	XORQ	SI, SI
	MOVQ	SP, DX
	MOVQ	$8, R10
	SYSCALL
	CMPQ	AX, $0
	JNE	done
	CMPQ	0(SP), $1		// SIG_IGN
	JNE	done
	LEAQ	-1(R13), AX
	BTSQ	AX, R12
done:
	INCQ	R13
	CMPQ	R13, $64
	JLE	next
	MOVQ	R12, ·inherited(SB)
	ADDQ	$32, SP
	XORQ	R12, R12		// bit N: descriptor N is closed
	XORQ	R13, R13		// N
descriptor:
	MOVQ	$72, AX			// fcntl(N, F_GETFD)
	MOVQ	R13, DI
	MOVQ	$1, SI
	SYSCALL
	CMPQ	AX, $0
	JGE	open
	BTSQ	R13, R12
open:
	INCQ	R13
	CMPQ	R13, $3
	JLT	descriptor
	MOVQ	R12, ·closed(SB)
	XORQ	DX, DX			// as the kernel left it
	JMP	_rt0_amd64_linux(SB)
