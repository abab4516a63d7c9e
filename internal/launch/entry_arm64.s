#include "textflag.h"

// opt_rbd_entry: see entry_amd64.s.
TEXT opt_rbd_entry(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	SUB	$32, RSP		// the kernel's struct sigaction
	MOVD	$0, R12			// bit N-1: signal N is ignored
	MOVD	$1, R13			// N
	MOVD	$1, R14			// the bit of N
next:
	MOVD	R13, R0			// rt_sigaction(N, NULL, RSP, 8)
	MOVD	$0, R1
	MOVD	RSP, R2
	MOVD	$8, R3
	MOVD	$134, R8
	SVC
	CBNZ	R0, done
	MOVD	0(RSP), R1
	CMP	$1, R1			// SIG_IGN
	BNE	done
	ORR	R14, R12, R12
done:
	LSL	$1, R14, R14
	ADD	$1, R13, R13
	CMP	$64, R13
	BLE	next
	MOVD	R12, ·inherited(SB)
	ADD	$32, RSP
	MOVD	$0, R12			// bit N: descriptor N is closed
	MOVD	$0, R13			// N
	MOVD	$1, R14			// the bit of N
descriptor:
	MOVD	R13, R0			// fcntl(N, F_GETFD)
	MOVD	$1, R1
	MOVD	$25, R8
	SVC
	CMP	$0, R0
	BGE	open
	ORR	R14, R12, R12
open:
	LSL	$1, R14, R14
	ADD	$1, R13, R13
	CMP	$3, R13
	BLT	descriptor
	MOVD	R12, ·closed(SB)
	MOVD	$0, R0			// as the kernel left it
	JMP	_rt0_arm64_linux(SB)
