/* filter.c - build the seccomp filter of a service
 *
 * Theory of operation: the filter first separates the ABIs, then compares the call's number with the
 * few that matter. A call that is in none of the lists is allowed having looked at nothing but
 * architecture and number; the kernel sees that when the filter is installed and answers such calls
 * from a bitmap ever after, without running the filter (kernel/seccomp.c, seccomp_cache_prepare).
 *
 *   socket        notify for AF_INET and AF_INET6 with SOCK_STREAM and TCP; the rest is allowed
 *   connect       notify when the length can be an internet address: 16 to 128 bytes; in a strict
 *   bind          service: always (connect)
 *   listen        notify: a listening socket can be added to a service that runs, a filter cannot
 *   landlock_restrict_self
 *                 notify: the agent has to know what a program forbids itself
 *   sendto, ...   MSG_FASTOPEN connects without connect(): notify; in a strict service, and with stand-ins, it
 *                 fails with EOPNOTSUPP, as where net.ipv4.tcp_fastopen is off. UDP routed: notify for sendto with an
 *                 address, and for every sendmsg and sendmmsg, whose addresses lie in memory
 *   recvfrom, ... UDP routed, and transparent: notify where an address is to be told, likewise
 *   getpeername   transparent: notify
 *   epoll_ctl, getsockname, getpeername, setsockopt, getsockopt
 *                 stand-ins: notify; of SOL_SOCKET's options those that tell what a socket is
 *   socketcall    notify for the same calls, decided on its first argument, but for MSG_FASTOPEN, which
 *                 lies in memory; in a strict service that does not route UDP sending fails with ENOSYS there
 *   io_uring      fails with ENOSYS, because its requests never meet seccomp, or is allowed
 *   other ABIs    every call fails with ENOSYS (x32, and what the kernel may learn one day)
 *
 * Arguments are compared by their low 32 bits: the calls declare them as int.
 * Source: seccomp(2), bpf classic in linux/Documentation/networking/filter.rst. */
#include "filter.h"

#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>

#include "abi.h"
#include "kernel.h"
#include "util.h"
#include "wire.h"

#define SOCK_TYPE_BITS 0xf /* linux/net.h: SOCK_TYPE_MASK */
#define SOCKADDR_MIN 16    /* sizeof(struct sockaddr_in) */
#define SOCKADDR_MAX 128   /* sizeof(struct sockaddr_storage) */
#define IO_URING_CALLS 3
#define SENDTO_ADDRESS 4 /* the argument's number */
#define RECVFROM_ADDRESS 4

#define AT_NR offsetof(struct seccomp_data, nr)
#define AT_ARCH offsetof(struct seccomp_data, arch)
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define AT_ARG(n) (offsetof(struct seccomp_data, args) + 8 * (n))
#else
#define AT_ARG(n) (offsetof(struct seccomp_data, args) + 8 * (n) + 4)
#endif

#define DO_NOTIFY SECCOMP_RET_USER_NOTIF
#define DO_ALLOW SECCOMP_RET_ALLOW
#define DO_FAIL(error) (SECCOMP_RET_ERRNO | (error))

struct assembler {
    struct sock_filter *program;
    unsigned n;
};

static void put(struct assembler *as, uint16_t code, uint32_t k, uint8_t if_true, uint8_t if_false)
{
    as->program[as->n++] =
        (struct sock_filter){.code = code, .jt = if_true, .jf = if_false, .k = k};
}

static void load(struct assembler *as, size_t at)
{
    put(as, BPF_LD | BPF_W | BPF_ABS, (uint32_t)at, 0, 0);
}

static void result(struct assembler *as, uint32_t action)
{
    put(as, BPF_RET | BPF_K, action, 0, 0);
}

static void result_if(struct assembler *as, uint16_t test, uint32_t k, uint32_t action)
{
    put(as, BPF_JMP | BPF_K | test, k, 0, 1);
    result(as, action);
}

static void result_unless(struct assembler *as, uint16_t test, uint32_t k, uint32_t action)
{
    put(as, BPF_JMP | BPF_K | test, k, 1, 0);
    result(as, action);
}

/* Opens a block that runs only when the accumulator equals k; the block must end in a result. Conditional
 * jumps reach 255 instructions, this one any number. */
static unsigned block_if(struct assembler *as, uint32_t k)
{
    put(as, BPF_JMP | BPF_K | BPF_JEQ, k, 1, 0);
    put(as, BPF_JMP | BPF_JA, 0, 0, 0);
    return as->n;
}

static void block_end(struct assembler *as, unsigned begin)
{
    as->program[begin - 1].k = as->n - begin;
}

/* Every stream and datagram socket of AF_INET; see mfd_socket_handle(). */
static void ipv4_block(struct assembler *as)
{
    unsigned begin;

    load(as, AT_ARG(0));
    begin = block_if(as, AF_INET);
    load(as, AT_ARG(1));
    put(as, BPF_ALU | BPF_K | BPF_AND, SOCK_TYPE_BITS, 0, 0);
    result_if(as, BPF_JEQ, SOCK_STREAM, DO_NOTIFY);
    result_if(as, BPF_JEQ, SOCK_DGRAM, DO_NOTIFY);
    result(as, DO_ALLOW);
    block_end(as, begin);
}

static void socket_block(struct assembler *as, int nr, const struct mfd_filter_features *features)
{
    unsigned begin = block_if(as, (uint32_t)nr);

    if (features->ipv4)
        ipv4_block(as);
    if (!features->create)
        result(as, DO_ALLOW);
    load(as, AT_ARG(0));
    put(as, BPF_JMP | BPF_K | BPF_JEQ, AF_INET, 2, 0);
    result_unless(as, BPF_JEQ, AF_INET6, DO_ALLOW);
    load(as, AT_ARG(1));
    put(as, BPF_ALU | BPF_K | BPF_AND, SOCK_TYPE_BITS, 0, 0);
    result_unless(as, BPF_JEQ, SOCK_STREAM, DO_ALLOW);
    load(as, AT_ARG(2));
    result_if(as, BPF_JEQ, 0, DO_NOTIFY);
    result_if(as, BPF_JEQ, IPPROTO_TCP, DO_NOTIFY);
    result_if(as, BPF_JEQ, IPPROTO_MPTCP, DO_NOTIFY);
    result(as, DO_ALLOW);
    block_end(as, begin);
}

static void address_block(struct assembler *as, int nr)
{
    unsigned begin = block_if(as, (uint32_t)nr);

    load(as, AT_ARG(2));
    result_if(as, BPF_JGT, SOCKADDR_MAX, DO_ALLOW);
    result_unless(as, BPF_JGE, SOCKADDR_MIN, DO_ALLOW);
    result(as, DO_NOTIFY);
    block_end(as, begin);
}

/* Jumps to whatever comes next unless one of the argument's halves is not 0. */
static void result_if_given(struct assembler *as, unsigned argument, uint32_t action)
{
    const size_t low = AT_ARG(argument);
    const size_t high = low % 8 == 0 ? low + 4 : low - 4;

    load(as, low);
    result_unless(as, BPF_JEQ, 0, action);
    load(as, high);
    result_unless(as, BPF_JEQ, 0, action);
}

/* Can connect() put another file in a socket's place? */
static bool may_replace(const struct mfd_filter_features *features)
{
    return features->standins || features->elsewhere || features->ipv4;
}

/* @always: notify whatever the flags; @address_argument: notify when it is given; 0: there is none */
static void send_block(struct assembler *as, int nr, unsigned flags_argument,
                       unsigned address_argument, const struct mfd_filter_features *features)
{
    unsigned begin = block_if(as, (uint32_t)nr);

    load(as, AT_ARG(flags_argument));
    result_if(as, BPF_JSET, MSG_FASTOPEN,
              features->strict || may_replace(features) ? DO_FAIL(EOPNOTSUPP) : DO_NOTIFY);
    if (features->udp && address_argument != 0)
        result_if_given(as, address_argument, DO_NOTIFY);
    result(as, features->udp && address_argument == 0 ? DO_NOTIFY : DO_ALLOW);
    block_end(as, begin);
}

static void receive_blocks(struct assembler *as, const struct mfd_abi *abi)
{
    unsigned begin = block_if(as, (uint32_t)abi->recvfrom);

    result_if_given(as, RECVFROM_ADDRESS, DO_NOTIFY);
    result(as, DO_ALLOW);
    block_end(as, begin);
    result_if(as, BPF_JEQ, (uint32_t)abi->recvmsg, DO_NOTIFY);
    result_if(as, BPF_JEQ, (uint32_t)abi->recvmmsg, DO_NOTIFY);
    if (abi->recvmmsg_time64 >= 0)
        result_if(as, BPF_JEQ, (uint32_t)abi->recvmmsg_time64, DO_NOTIFY);
}

/* Options of SOL_SOCKET that tell a stand-in from the TCP socket that it stands for; those of every other level
 * do, too. */
static const int telling_names[] = {SO_DOMAIN,  SO_PROTOCOL,   SO_PEERNAME,  SO_PEERCRED,
                                    SO_PEERSEC, SO_PEERGROUPS, SO_PEERPIDFD, SO_COOKIE};

/* mfd_filter_tells - is this an option that a stand-in answers? None of SOL_SOCKET is set there. */
bool mfd_filter_tells(int level, int name, bool set)
{
    if (level != SOL_SOCKET)
        return true;
    for (size_t i = 0; i < MFD_COUNT(telling_names); i++)
        if (!set && name == telling_names[i])
            return true;
    return false;
}

static void option_block(struct assembler *as, int nr, bool set)
{
    unsigned begin = block_if(as, (uint32_t)nr);

    load(as, AT_ARG(1));
    result_unless(as, BPF_JEQ, SOL_SOCKET, DO_NOTIFY);
    load(as, AT_ARG(2));
    for (size_t i = 0; !set && i < MFD_COUNT(telling_names); i++)
        result_if(as, BPF_JEQ, (uint32_t)telling_names[i], DO_NOTIFY);
    result(as, DO_ALLOW);
    block_end(as, begin);
}

static void standin_rules(struct assembler *as, const struct mfd_abi *abi)
{
    result_if(as, BPF_JEQ, (uint32_t)abi->getsockname, DO_NOTIFY);
    result_if(as, BPF_JEQ, (uint32_t)abi->getpeername, DO_NOTIFY);
    option_block(as, abi->setsockopt, true);
    option_block(as, abi->getsockopt, false);
}

static void socketcall_block(struct assembler *as, const struct mfd_abi *abi,
                             const struct mfd_filter_features *features)
{
    static const uint32_t sends[] = {MFD_SYS_SENDTO, MFD_SYS_SENDMSG, MFD_SYS_SENDMMSG};
    static const uint32_t told[] = {MFD_SYS_GETSOCKNAME, MFD_SYS_GETPEERNAME, MFD_SYS_SETSOCKOPT,
                                    MFD_SYS_GETSOCKOPT};
    static const uint32_t receives[] = {MFD_SYS_RECVFROM, MFD_SYS_RECVMSG, MFD_SYS_RECVMMSG};
    unsigned begin = block_if(as, (uint32_t)abi->socketcall);

    load(as, AT_ARG(0));
    result_if(as, BPF_JEQ, MFD_SYS_CONNECT, DO_NOTIFY);
    if (features->create || features->ipv4)
        result_if(as, BPF_JEQ, MFD_SYS_SOCKET, DO_NOTIFY);
    result_if(as, BPF_JEQ, MFD_SYS_BIND, DO_NOTIFY);
    result_if(as, BPF_JEQ, MFD_SYS_LISTEN, DO_NOTIFY);
    /* Flags and address lie in memory. After a CONTINUE the kernel would read them anew: so a strict
     * service that has no reason to look at what is sent may not send so. */
    for (size_t i = 0; i < MFD_COUNT(sends); i++) {
        if (features->udp)
            result_if(as, BPF_JEQ, sends[i], DO_NOTIFY);
        else if (features->strict)
            result_if(as, BPF_JEQ, sends[i], DO_FAIL(ENOSYS));
    }
    if (features->udp && features->transparent)
        for (size_t i = 0; i < MFD_COUNT(receives); i++)
            result_if(as, BPF_JEQ, receives[i], DO_NOTIFY);
    if (features->transparent)
        result_if(as, BPF_JEQ, MFD_SYS_GETPEERNAME, DO_NOTIFY);
    if (features->standins)
        for (size_t i = 0; i < MFD_COUNT(told); i++)
            result_if(as, BPF_JEQ, told[i], DO_NOTIFY);
    result(as, DO_ALLOW);
    block_end(as, begin);
}

/* The rules of one ABI; the accumulator holds the call's number. Ends in a result. */
static void abi_rules(struct assembler *as, const struct mfd_abi *abi,
                      const struct mfd_filter_features *features)
{
    /* also for a ring that was inherited: setup, enter and register have successive numbers */
    for (uint32_t i = 0; i < IO_URING_CALLS && !features->io_uring; i++)
        result_if(as, BPF_JEQ, (uint32_t)abi->io_uring_setup + i, DO_FAIL(ENOSYS));
    if (features->create || features->ipv4)
        socket_block(as, abi->socket, features);
    if (features->strict || features->standins) /* on a stand-in, of any length */
        result_if(as, BPF_JEQ, (uint32_t)abi->connect, DO_NOTIFY);
    else
        address_block(as, abi->connect);
    address_block(as, abi->bind);
    result_if(as, BPF_JEQ, (uint32_t)abi->listen, DO_NOTIFY);
    result_if(as, BPF_JEQ, (uint32_t)abi->landlock_restrict_self, DO_NOTIFY);
    if (may_replace(features))
        result_if(as, BPF_JEQ, (uint32_t)abi->epoll_ctl, DO_NOTIFY);
    if (features->standins)
        standin_rules(as, abi);
    if (abi->socketcall >= 0)
        socketcall_block(as, abi, features);
    send_block(as, abi->sendto, 3, SENDTO_ADDRESS, features);
    send_block(as, abi->sendmsg, 2, 0, features);
    send_block(as, abi->sendmmsg, 3, 0, features);
    if (features->udp && features->transparent)
        receive_blocks(as, abi);
    if (features->transparent)
        result_if(as, BPF_JEQ, (uint32_t)abi->getpeername, DO_NOTIFY);
    result(as, DO_ALLOW);
}

/* mfd_filter_features_of - what SETUP asked for
 * @setup_flags: MFD_SETUP_* */
struct mfd_filter_features mfd_filter_features_of(uint32_t setup_flags)
{
    return (struct mfd_filter_features){
        .create = (setup_flags & MFD_SETUP_CREATE) != 0,
        .strict = (setup_flags & MFD_SETUP_STRICT) != 0,
        .udp = (setup_flags & MFD_SETUP_UDP) != 0,
        .standins = (setup_flags & MFD_SETUP_STANDINS) != 0,
        .transparent = (setup_flags & MFD_SETUP_TRANSPARENT) != 0,
        .io_uring = (setup_flags & MFD_SETUP_IO_URING) != 0,
        .elsewhere = (setup_flags & MFD_SETUP_ELSEWHERE) != 0,
        .ipv4 = (setup_flags & MFD_SETUP_IPV4) != 0,
    };
}

/* mfd_filter_build - write the filter of a service with these features
 * Return: the number of instructions. */
unsigned mfd_filter_build(const struct mfd_filter_features *features,
                          struct sock_filter ret_program[MFD_FILTER_MAX])
{
    struct assembler as = {.program = ret_program};
    unsigned begin;

    load(&as, AT_ARCH);
    begin = block_if(&as, mfd_abi_native.arch);
    load(&as, AT_NR);
#ifdef MFD_X32_BIT
    result_if(&as, BPF_JEQ, UINT32_MAX, DO_ALLOW); /* a tracer has it skipped (ptrace(2)) */
    result_if(&as, BPF_JGE, MFD_X32_BIT, DO_FAIL(ENOSYS));
#endif
    abi_rules(&as, &mfd_abi_native, features);
    block_end(&as, begin);

    begin = block_if(&as, mfd_abi_compat.arch);
    load(&as, AT_NR);
    abi_rules(&as, &mfd_abi_compat, features);
    block_end(&as, begin);

    result(&as, DO_FAIL(ENOSYS));
    return as.n;
}
