/* call.c - which call a notification is about, whatever ABI it was made through
 *
 * socketcall(2) keeps its arguments in the program's memory; they are read once, here.
 * Source: net/compat.c (compat_sys_socketcall). */
#include <errno.h>
#include <sys/uio.h>

#include "abi.h"
#include "filter.h"
#include "util.h"

/* Calls of socketcall(2), and how many arguments of each lie in memory (net/socket.c, nargs). */
static const struct socketcall {
    uint32_t number;
    enum mfd_call_kind kind;
    unsigned n_args;
} socketcalls[] = {
    {MFD_SYS_SOCKET, MFD_CALL_SOCKET, 3},           {MFD_SYS_BIND, MFD_CALL_BIND, 3},
    {MFD_SYS_CONNECT, MFD_CALL_CONNECT, 3},         {MFD_SYS_LISTEN, MFD_CALL_LISTEN, 2},
    {MFD_SYS_SENDTO, MFD_CALL_SENDTO, 6},           {MFD_SYS_SENDMSG, MFD_CALL_SENDMSG, 3},
    {MFD_SYS_SENDMMSG, MFD_CALL_SENDMMSG, 4},       {MFD_SYS_RECVFROM, MFD_CALL_RECVFROM, 6},
    {MFD_SYS_RECVMSG, MFD_CALL_RECVMSG, 3},         {MFD_SYS_RECVMMSG, MFD_CALL_RECVMMSG, 5},
    {MFD_SYS_GETPEERNAME, MFD_CALL_GETPEERNAME, 3}, {MFD_SYS_GETSOCKNAME, MFD_CALL_GETSOCKNAME, 3},
    {MFD_SYS_SETSOCKOPT, MFD_CALL_SETSOCKOPT, 5},   {MFD_SYS_GETSOCKOPT, MFD_CALL_GETSOCKOPT, 5},
};

static void decode_socketcall(const struct seccomp_notif *request, struct mfd_call_args *ret_call)
{
    uint32_t args[MFD_CALL_ARGS] = {0};
    struct iovec local = {.iov_base = args};
    struct iovec remote = {.iov_base = (void *)(uintptr_t)(uint32_t)request->data.args[1]};
    const struct socketcall *found = NULL;
    ssize_t n;

    for (size_t i = 0; i < MFD_COUNT(socketcalls); i++)
        if (socketcalls[i].number == (uint32_t)request->data.args[0])
            found = &socketcalls[i];
    if (found == NULL)
        return;
    ret_call->kind = found->kind;
    ret_call->in_memory = true;
    ret_call->time32 = true;
    local.iov_len = found->n_args * sizeof(args[0]);
    remote.iov_len = local.iov_len;
    n = process_vm_readv((pid_t)request->pid, &local, 1, &remote, 1, 0);
    if (n != (ssize_t)local.iov_len) {
        /* a program out of our reach is the kernel's: what a strict service refuses, it refuses there */
        ret_call->kind = n >= 0 || errno == EFAULT ? MFD_CALL_LOST : MFD_CALL_OTHER;
        return;
    }
    for (unsigned i = 0; i < MFD_CALL_ARGS; i++)
        ret_call->args[i] = args[i];
}

static enum mfd_call_kind kind_of(const struct mfd_abi *abi, int nr)
{
    const struct {
        int nr;
        enum mfd_call_kind kind;
    } calls[] = {
        {abi->socket, MFD_CALL_SOCKET},
        {abi->connect, MFD_CALL_CONNECT},
        {abi->bind, MFD_CALL_BIND},
        {abi->listen, MFD_CALL_LISTEN},
        {abi->sendto, MFD_CALL_SENDTO},
        {abi->sendmsg, MFD_CALL_SENDMSG},
        {abi->sendmmsg, MFD_CALL_SENDMMSG},
        {abi->recvfrom, MFD_CALL_RECVFROM},
        {abi->recvmsg, MFD_CALL_RECVMSG},
        {abi->recvmmsg, MFD_CALL_RECVMMSG},
        {abi->getpeername, MFD_CALL_GETPEERNAME},
        {abi->recvmmsg_time64, MFD_CALL_RECVMMSG},
        {abi->getsockname, MFD_CALL_GETSOCKNAME},
        {abi->setsockopt, MFD_CALL_SETSOCKOPT},
        {abi->getsockopt, MFD_CALL_GETSOCKOPT},
        {abi->epoll_ctl, MFD_CALL_EPOLL_CTL},
        {abi->landlock_restrict_self, MFD_CALL_RESTRICT_SELF},
    };

    for (size_t i = 0; i < MFD_COUNT(calls); i++)
        if (calls[i].nr == nr && nr >= 0)
            return calls[i].kind;
    return MFD_CALL_OTHER;
}

/* mfd_call_decode - name the call and its arguments */
void mfd_call_decode(const struct seccomp_notif *request, struct mfd_call_args *ret_call)
{
    const bool compat = request->data.arch != mfd_abi_native.arch;
    const struct mfd_abi *abi = compat ? &mfd_abi_compat : &mfd_abi_native;
    int nr = request->data.nr;

    *ret_call = (struct mfd_call_args){.kind = kind_of(abi, nr), .compat = compat};
    for (unsigned i = 0; i < MFD_CALL_ARGS; i++)
        ret_call->args[i] = request->data.args[i];
    ret_call->time32 = compat && nr == abi->recvmmsg;
    if (abi->socketcall >= 0 && nr == abi->socketcall)
        decode_socketcall(request, ret_call);
}
