/* abi.h - the numbers of the calls that meshfd looks at, for the native ABI and its 32-bit sibling
 *
 * A program can make system calls by any ABI that its kernel offers, whatever it was compiled for.
 * Source: arch/x86/entry/syscalls/syscall_32.tbl, arch/arm/tools/syscall.tbl, linux/net.h. */
#ifndef MESHFD_ABI_H
#define MESHFD_ABI_H

#include <linux/audit.h>
#include <stdint.h>
#include <sys/syscall.h>

#include "kernel.h"

/* socketcall(2) numbers, linux/net.h */
#define MFD_SYS_SOCKET 1
#define MFD_SYS_BIND 2
#define MFD_SYS_CONNECT 3
#define MFD_SYS_LISTEN 4
#define MFD_SYS_GETSOCKNAME 6
#define MFD_SYS_GETPEERNAME 7
#define MFD_SYS_SENDTO 11
#define MFD_SYS_RECVFROM 12
#define MFD_SYS_SETSOCKOPT 14
#define MFD_SYS_GETSOCKOPT 15
#define MFD_SYS_SENDMSG 16
#define MFD_SYS_RECVMSG 17
#define MFD_SYS_RECVMMSG 19
#define MFD_SYS_SENDMMSG 20

struct mfd_abi {
    uint32_t arch;  /* AUDIT_ARCH_* */
    int socketcall; /* -1: the ABI has none */
    int socket;
    int bind;
    int connect;
    int listen;
    int sendto;
    int sendmsg;
    int sendmmsg;
    int recvfrom;
    int recvmsg;
    int recvmmsg;        /* struct timespec as the ABI has it of old */
    int recvmmsg_time64; /* -1: the ABI needs none */
    int getpeername;
    int getsockname;
    int setsockopt;
    int getsockopt;
    int epoll_ctl;
    int io_uring_setup;
    int landlock_restrict_self;
    int poll; /* those in which threads wait for sockets; -1: the ABI has none */
    int ppoll;
    int ppoll_time64;
    int select; /* the one with five arguments */
    int pselect6;
    int pselect6_time64;
};

#if defined(__x86_64__)
#define MFD_ARCH_NATIVE AUDIT_ARCH_X86_64
#define MFD_X32_BIT 0x40000000u /* arch/x86/include/uapi/asm/unistd.h: __X32_SYSCALL_BIT */
static const struct mfd_abi mfd_abi_compat = {
    .arch = AUDIT_ARCH_I386,
    .socketcall = 102,
    .socket = 359,
    .bind = 361,
    .connect = 362,
    .listen = 363,
    .sendto = 369,
    .sendmsg = 370,
    .sendmmsg = 345,
    .recvfrom = 371,
    .recvmsg = 372,
    .recvmmsg = 337,
    .recvmmsg_time64 = 417,
    .getpeername = 368,
    .getsockname = 367,
    .setsockopt = 366,
    .getsockopt = 365,
    .epoll_ctl = 255,
    .io_uring_setup = 425,
    .landlock_restrict_self = 446,
    .poll = 168,
    .ppoll = 309,
    .ppoll_time64 = 414,
    .select = 142,
    .pselect6 = 308,
    .pselect6_time64 = 413,
};
#elif defined(__aarch64__)
#define MFD_ARCH_NATIVE AUDIT_ARCH_AARCH64
static const struct mfd_abi mfd_abi_compat = {
    .arch = AUDIT_ARCH_ARM,
    .socketcall = -1, /* the EABI has none; OABI calls are not in CONFIG_COMPAT kernels */
    .socket = 281,
    .bind = 282,
    .connect = 283,
    .listen = 284,
    .sendto = 290,
    .sendmsg = 296,
    .sendmmsg = 374,
    .recvfrom = 292,
    .recvmsg = 297,
    .recvmmsg = 365,
    .recvmmsg_time64 = 417,
    .getpeername = 287,
    .getsockname = 286,
    .setsockopt = 294,
    .getsockopt = 295,
    .epoll_ctl = 251,
    .io_uring_setup = 425,
    .landlock_restrict_self = 446,
    .poll = 168,
    .ppoll = 336,
    .ppoll_time64 = 414,
    .select = 142,
    .pselect6 = 335,
    .pselect6_time64 = 413,
};
#else
#error "meshfd runs on x86_64 and aarch64"
#endif

static const struct mfd_abi mfd_abi_native = {
    .arch = MFD_ARCH_NATIVE,
    .socketcall = -1,
    .socket = SYS_socket,
    .bind = SYS_bind,
    .connect = SYS_connect,
    .listen = SYS_listen,
    .sendto = SYS_sendto,
    .sendmsg = SYS_sendmsg,
    .sendmmsg = SYS_sendmmsg,
    .recvfrom = SYS_recvfrom,
    .recvmsg = SYS_recvmsg,
    .recvmmsg = SYS_recvmmsg,
    .recvmmsg_time64 = -1,
    .getpeername = SYS_getpeername,
    .getsockname = SYS_getsockname,
    .setsockopt = SYS_setsockopt,
    .getsockopt = SYS_getsockopt,
    .epoll_ctl = SYS_epoll_ctl,
    .io_uring_setup = SYS_io_uring_setup,
    .landlock_restrict_self = SYS_landlock_restrict_self,
#if defined(SYS_poll) && defined(SYS_select)
    .poll = SYS_poll,
    .select = SYS_select,
#else
    .poll = -1,
    .select = -1,
#endif
    .ppoll = SYS_ppoll,
    .ppoll_time64 = -1,
    .pselect6 = SYS_pselect6,
    .pselect6_time64 = -1,
};

#endif
