/* Which call a notification is about, by every ABI, socketcall(2)'s arguments included. */
#include <linux/audit.h>
#include <sys/wait.h>

#include "../abi.h"
#include "check.h"

static struct mfd_call_args decode(uint32_t arch, int nr, pid_t pid, const uint64_t args[3])
{
    struct seccomp_notif request = {.pid = (uint32_t)pid, .data = {.nr = nr, .arch = arch}};
    struct mfd_call_args call;

    memcpy(request.data.args, args, 3 * sizeof(args[0]));
    mfd_call_decode(&request, &call);
    return call;
}

static void calls_are_named_by_their_number(void)
{
    static const struct mfd_abi *const abis[] = {&mfd_abi_native, &mfd_abi_compat};
    static const uint64_t args[3] = {1, UINT64_MAX, 3};

    for (size_t i = 0; i < MFD_COUNT(abis); i++) {
        const struct mfd_abi *abi = abis[i];
        struct mfd_call_args call = decode(abi->arch, abi->connect, 1, args);

        CHECK_EQ(call.kind, MFD_CALL_CONNECT);
        CHECK(memcmp(call.args, args, sizeof(args)) == 0);
        CHECK_EQ(decode(abi->arch, abi->socket, 1, args).kind, MFD_CALL_SOCKET);
        CHECK_EQ(decode(abi->arch, abi->bind, 1, args).kind, MFD_CALL_BIND);
        CHECK_EQ(decode(abi->arch, abi->listen, 1, args).kind, MFD_CALL_LISTEN);
        CHECK_EQ(decode(abi->arch, abi->sendto, 1, args).kind, MFD_CALL_SENDTO);
        CHECK_EQ(decode(abi->arch, abi->sendmsg, 1, args).kind, MFD_CALL_SENDMSG);
        CHECK_EQ(decode(abi->arch, abi->sendmmsg, 1, args).kind, MFD_CALL_SENDMMSG);
        CHECK_EQ(decode(abi->arch, abi->recvfrom, 1, args).kind, MFD_CALL_RECVFROM);
        CHECK_EQ(decode(abi->arch, abi->recvmsg, 1, args).kind, MFD_CALL_RECVMSG);
        CHECK_EQ(decode(abi->arch, abi->recvmmsg, 1, args).kind, MFD_CALL_RECVMMSG);
        CHECK_EQ(decode(abi->arch, abi->getpeername, 1, args).kind, MFD_CALL_GETPEERNAME);
        CHECK_EQ(decode(abi->arch, abi->io_uring_setup, 1, args).kind, MFD_CALL_OTHER);
        CHECK_EQ(decode(abi->arch, abi->recvmmsg, 1, args).time32, i == 1);
        CHECK_EQ(call.compat, i == 1);
        CHECK(!call.in_memory);
        CHECK_EQ(decode(abi->arch, -1, 1, args).kind, MFD_CALL_OTHER); /* "no socketcall" is -1 */
    }
}

#if defined(__x86_64__)
static struct mfd_call_args socketcall(uint64_t number, pid_t pid, uint32_t where)
{
    /* the high half of a register is no part of a 32-bit argument */
    return decode(AUDIT_ARCH_I386, 102, pid,
                  (const uint64_t[3]){number, 0xdeadbeef00000000u | where, 0});
}

static void socketcall_reads_its_arguments_once_from_memory(void)
{
    const size_t page = 4096;
    uint32_t *low = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    uint32_t *edge;
    uint32_t where;
    struct mfd_call_args call;

    NEED(low != MAP_FAILED && munmap(low + page / 4, page) == 0);
    edge = low + page / 4 - 2; /* two words before the end of what is mapped */
    where = (uint32_t)(uintptr_t)low;
    low[0] = 5;
    low[1] = UINT32_MAX;
    low[2] = 16;
    call = socketcall(3, getpid(), where);
    CHECK_EQ(call.kind, MFD_CALL_CONNECT);
    CHECK_EQ(call.args[0], 5);
    CHECK_EQ(call.args[1], UINT32_MAX); /* not sign-extended */
    CHECK_EQ(call.args[2], 16);
    CHECK(call.compat && call.in_memory);
    for (uint32_t i = 3; i < 6; i++)
        low[i] = 100 + i;
    call = socketcall(11, getpid(), where);
    CHECK_EQ(call.kind, MFD_CALL_SENDTO);
    CHECK_EQ(call.args[5], 105);
    CHECK_EQ(socketcall(19, getpid(), where).kind, MFD_CALL_RECVMMSG);
    CHECK(socketcall(19, getpid(), where).time32);
    CHECK_EQ(socketcall(1, getpid(), where).kind, MFD_CALL_SOCKET);
    CHECK_EQ(socketcall(2, getpid(), where).kind, MFD_CALL_BIND);
    CHECK_EQ(socketcall(5, getpid(), where).kind, MFD_CALL_OTHER);
    CHECK_EQ(socketcall(5, getpid(), 0).kind, MFD_CALL_OTHER); /* not looked at */
    edge[0] = 6;
    edge[1] = 128;
    where = (uint32_t)(uintptr_t)edge;
    call = socketcall(4, getpid(), where); /* listen() has but two */
    CHECK_EQ(call.kind, MFD_CALL_LISTEN);
    CHECK_EQ(call.args[0], 6);
    CHECK_EQ(call.args[1], 128);
    CHECK_EQ(socketcall(3, getpid(), where).kind, MFD_CALL_LOST);
    CHECK_EQ(socketcall(3, getpid(), 0).kind, MFD_CALL_LOST);
    CHECK_EQ(munmap(low, page), 0);
}

static void a_target_out_of_reach_is_the_kernels(void)
{
    pid_t pid = fork();

    NEED(pid >= 0);
    if (pid == 0)
        _exit(0);
    NEED(waitpid(pid, NULL, 0) == pid);
    CHECK_EQ(socketcall(3, pid, 0x1000).kind, MFD_CALL_OTHER);
}
#endif

int main(void)
{
    calls_are_named_by_their_number();
#if defined(__x86_64__)
    socketcall_reads_its_arguments_once_from_memory();
    a_target_out_of_reach_is_the_kernels();
#endif
    return check_result();
}
