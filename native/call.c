/* call.c - which call a notification is about, whatever ABI it was made through
 *
 * socketcall(2) keeps its arguments in the program's memory; they are read once, here.
 * Source: net/compat.c (compat_sys_socketcall). */
#include <errno.h>
#include <sys/uio.h>

#include "abi.h"
#include "filter.h"

#define SOCKETCALL_ARGS 3 /* of the calls that are trapped */

static enum mfd_call_kind kind_of_socketcall(uint64_t call)
{
    switch ((uint32_t)call) {
    case MFD_SYS_SOCKET:
        return MFD_CALL_SOCKET;
    case MFD_SYS_BIND:
        return MFD_CALL_BIND;
    case MFD_SYS_CONNECT:
        return MFD_CALL_CONNECT;
    case MFD_SYS_LISTEN:
        return MFD_CALL_LISTEN;
    default:
        return MFD_CALL_OTHER;
    }
}

static void decode_socketcall(const struct seccomp_notif *request, struct mfd_call_args *ret_call)
{
    uint32_t args[SOCKETCALL_ARGS] = {0};
    size_t size = sizeof(args);
    struct iovec local = {.iov_base = args};
    struct iovec remote = {.iov_base = (void *)(uintptr_t)(uint32_t)request->data.args[1]};
    ssize_t n;

    ret_call->kind = kind_of_socketcall(request->data.args[0]);
    if (ret_call->kind == MFD_CALL_OTHER)
        return;
    if (ret_call->kind == MFD_CALL_LISTEN)
        size = 2 * sizeof(args[0]);
    local.iov_len = size;
    remote.iov_len = size;
    n = process_vm_readv((pid_t)request->pid, &local, 1, &remote, 1, 0);
    if (n != (ssize_t)size) {
        /* a program out of our reach is the kernel's: what a strict service refuses, it refuses there */
        ret_call->kind = n >= 0 || errno == EFAULT ? MFD_CALL_LOST : MFD_CALL_OTHER;
        return;
    }
    for (unsigned i = 0; i < SOCKETCALL_ARGS; i++)
        ret_call->args[i] = args[i];
}

/* mfd_call_decode - name the call and its first three arguments */
void mfd_call_decode(const struct seccomp_notif *request, struct mfd_call_args *ret_call)
{
    const struct mfd_abi *abi =
        request->data.arch == mfd_abi_native.arch ? &mfd_abi_native : &mfd_abi_compat;
    int nr = request->data.nr;

    *ret_call = (struct mfd_call_args){.kind = MFD_CALL_OTHER};
    for (unsigned i = 0; i < 3; i++)
        ret_call->args[i] = request->data.args[i];
    if (nr == abi->socket)
        ret_call->kind = MFD_CALL_SOCKET;
    else if (nr == abi->connect)
        ret_call->kind = MFD_CALL_CONNECT;
    else if (nr == abi->bind)
        ret_call->kind = MFD_CALL_BIND;
    else if (nr == abi->listen)
        ret_call->kind = MFD_CALL_LISTEN;
    else if (abi->socketcall >= 0 && nr == abi->socketcall)
        decode_socketcall(request, ret_call);
}
