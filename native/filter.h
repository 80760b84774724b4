/* filter.h - the seccomp filter of a service, and reading the calls that it traps (filter.c, call.c) */
#ifndef MESHFD_FILTER_H
#define MESHFD_FILTER_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdint.h>

#define MFD_FILTER_MAX 512 /* instructions; a full filter has about 300 */

struct mfd_filter_features {
    bool create;      /* trap socket(): the agent makes the service's TCP sockets */
    bool strict;      /* trap every connect(), whatever its length; refuse TCP Fast Open by send */
    bool udp;         /* some route is for UDP */
    bool standins;    /* some endpoint is a unix socket */
    bool transparent; /* programs are told the addresses that they asked for */
    bool io_uring;    /* allow it */
    bool elsewhere;   /* some endpoint is reached from another network namespace */
    bool ipv4;        /* the service's IPv4 is in another: the agent makes all sockets of AF_INET */
};

struct mfd_filter_features mfd_filter_features_of(uint32_t setup_flags);
bool mfd_filter_tells(int level, int name, bool set);
unsigned mfd_filter_build(const struct mfd_filter_features *features,
                          struct sock_filter ret_program[MFD_FILTER_MAX]);

enum mfd_call_kind {
    MFD_CALL_OTHER, /* trapped, but nothing to do with it: let it run */
    MFD_CALL_SOCKET,
    MFD_CALL_CONNECT,
    MFD_CALL_BIND,
    MFD_CALL_LISTEN,
    MFD_CALL_SENDTO,
    MFD_CALL_SENDMSG,
    MFD_CALL_SENDMMSG,
    MFD_CALL_RECVFROM,
    MFD_CALL_RECVMSG,
    MFD_CALL_RECVMMSG,
    MFD_CALL_GETPEERNAME,
    MFD_CALL_GETSOCKNAME,
    MFD_CALL_SETSOCKOPT,
    MFD_CALL_GETSOCKOPT,
    MFD_CALL_EPOLL_CTL,
    MFD_CALL_RESTRICT_SELF, /* landlock_restrict_self() */
    MFD_CALL_LOST,          /* its arguments could not be read */
};

#define MFD_CALL_ARGS 6

struct mfd_call_args {
    enum mfd_call_kind kind;
    bool compat;    /* what its arguments point to has the layout of the 32-bit ABI */
    bool in_memory; /* socketcall(2): the kernel would read the arguments anew */
    bool time32;    /* RECVMMSG: the timeout has 32-bit seconds */
    uint64_t args[MFD_CALL_ARGS];
};

void mfd_call_decode(const struct seccomp_notif *request, struct mfd_call_args *ret_call);

#endif
