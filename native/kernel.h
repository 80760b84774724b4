/* kernel.h - kernel constants that the headers of an older system lack
 *
 * Nothing here says that the running kernel has the feature: it is tried, and its absence handled
 * where it is used. Source: the uapi headers named beside each group. */
#ifndef MESHFD_KERNEL_H
#define MESHFD_KERNEL_H

#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

/* linux/seccomp.h */
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif
#ifndef SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#endif
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif

/* linux/fcntl.h */
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

/* asm-generic/socket.h */
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK                                                                                \
    72 /* bit 0: SO_SNDBUF was set, bit 1: SO_RCVBUF (linux/socket.h, SOCK_*_LOCK) */
#endif
#ifndef SO_TXREHASH
#define SO_TXREHASH 74
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* linux/socket.h */
#ifndef SOL_MPTCP
#define SOL_MPTCP 284
#endif

/* linux/pidfd.h */
#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif

/* linux/pidfd.h, of Linux 6.13 */
struct mfd_pidfd_info {
    uint64_t mask; /* what is asked for, and what is told */
    uint64_t cgroupid;
    uint32_t pids_and_ids[11];
    int32_t exit_code;
};
#define MFD_PIDFD_GET_INFO _IOWR(0xFF, 11, struct mfd_pidfd_info)
#define MFD_PIDFD_INFO_CGROUPID (1UL << 2)

/* linux/in.h */
#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif
#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

/* linux/landlock.h, of Linux 6.7 */
struct mfd_landlock_ruleset {
    uint64_t handled_access_fs;
    uint64_t handled_access_net;
};
#define MFD_LANDLOCK_CONNECT_TCP (1ULL << 1) /* LANDLOCK_ACCESS_NET_CONNECT_TCP */
/* of Linux 6.15: LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF */
#define MFD_LANDLOCK_LOG_SAME_EXEC_OFF (1U << 0)
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#endif
#ifndef SYS_landlock_add_rule
#define SYS_landlock_add_rule 445
#endif
#ifndef SYS_landlock_restrict_self
#define SYS_landlock_restrict_self 446
#endif

/* linux/socket.h */
#ifndef MSG_FASTOPEN
#define MSG_FASTOPEN 0x20000000
#endif
#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif

/* asm-generic/unistd.h: one number on every architecture since 5.1 */
#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

#endif
