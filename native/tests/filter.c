/* The filter, run by a small interpreter over a table of calls.
 *
 * The numbers here are literals from the kernel's tables and not from abi.h, so that a wrong number
 * there is seen. The same program is then given to the kernel, which checks it in its own way. */
#include <linux/audit.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "../kernel.h"
#include "check.h"

#define NOTIFY SECCOMP_RET_USER_NOTIF
#define ALLOW SECCOMP_RET_ALLOW
#define FAIL(error) (SECCOMP_RET_ERRNO | (unsigned)(error))
#define FAST_OPEN 0x20000000u
#define HIGH 0xdeadbeef00000000u /* the kernel looks at an int's 32 bits alone */
#define MPTCP 262

struct numbers {
    const char *name;
    uint32_t arch;
    int socketcall, socket, bind, connect, listen, sendto, sendmsg, sendmmsg, recvfrom, recvmsg,
        recvmmsg, recvmmsg_time64, getpeername, io_uring_setup, getsockname, setsockopt, getsockopt,
        epoll_ctl, landlock_restrict_self;
};

#if defined(__x86_64__)
static const struct numbers abis[] = {
    {"x86_64", AUDIT_ARCH_X86_64,
     -1,       41,
     49,       42,
     50,       44,
     46,       307,
     45,       47,
     299,      -1,
     52,       425,
     51,       54,
     55,       233,
     446},
    {"i386", AUDIT_ARCH_I386,
     102,    359,
     361,    362,
     363,    369,
     370,    345,
     371,    372,
     337,    417,
     368,    425,
     367,    366,
     365,    255,
     446},
};
#elif defined(__aarch64__)
static const struct numbers abis[] = {
    {"aarch64", AUDIT_ARCH_AARCH64,
     -1,        198,
     200,       203,
     201,       206,
     211,       269,
     207,       212,
     243,       -1,
     205,       425,
     204,       208,
     209,       21,
     446},
    {"arm", AUDIT_ARCH_ARM,
     -1,    281,
     282,   283,
     284,   290,
     296,   374,
     292,   297,
     365,   417,
     287,   425,
     286,   294,
     295,   251,
     446},
};
#endif

struct run {
    struct sock_filter program[MFD_FILTER_MAX];
    unsigned n;
    bool loaded_arguments; /* anything past the number and the architecture */
};

/* What the kernel would answer. Whatever a classic BPF program may not do is a failed check. */
static uint32_t interpret(struct run *run, const struct seccomp_data *data)
{
    uint32_t accumulator = 0;
    unsigned at = 0;

    run->loaded_arguments = false;
    while (at < run->n) {
        const struct sock_filter *now = &run->program[at++];
        bool taken;

        switch (now->code) {
        case BPF_LD | BPF_W | BPF_ABS:
            NEED(now->k % 4 == 0 && now->k + 4 <= sizeof(*data));
            if (now->k > offsetof(struct seccomp_data, arch))
                run->loaded_arguments = true;
            memcpy(&accumulator, (const uint8_t *)data + now->k, sizeof(accumulator));
            continue;
        case BPF_ALU | BPF_K | BPF_AND:
            accumulator &= now->k;
            continue;
        case BPF_JMP | BPF_JA:
            at += now->k;
            continue;
        case BPF_JMP | BPF_K | BPF_JEQ:
            taken = accumulator == now->k;
            break;
        case BPF_JMP | BPF_K | BPF_JGT:
            taken = accumulator > now->k;
            break;
        case BPF_JMP | BPF_K | BPF_JGE:
            taken = accumulator >= now->k;
            break;
        case BPF_JMP | BPF_K | BPF_JSET:
            taken = (accumulator & now->k) != 0;
            break;
        case BPF_RET | BPF_K:
            return now->k;
        default:
            NEED(!"an instruction that the filter is not known to use");
            return 0;
        }
        at += taken ? now->jt : now->jf;
    }
    NEED(!"the program ends in a result");
    return 0;
}

static uint32_t result_of(struct run *run, uint32_t arch, int nr, const uint64_t args[6])
{
    struct seccomp_data data = {.nr = nr, .arch = arch, .instruction_pointer = UINT64_MAX};

    for (unsigned i = 0; i < 6; i++)
        data.args[i] = args[i];
    return interpret(run, &data);
}

/* When a row's action holds; else the call is allowed. */
enum when {
    ALWAYS,
    CREATE,
    STRICT,
    NO_IO_URING,
    UDP,
    UDP_TOLD, /* UDP in a transparent service */
    STANDINS,
    WATCHED,     /* strict, or stand-ins */
    TOLD,        /* transparent, or stand-ins */
    FAST_OPENED, /* in a strict service, and with stand-ins, it fails instead */
    SENT_BY_SOCKETCALL
};

static bool holds(enum when when, const struct mfd_filter_features *features)
{
    switch (when) {
    case CREATE:
        return features->create;
    case STRICT:
        return features->strict;
    case NO_IO_URING:
        return !features->io_uring;
    case UDP:
    case SENT_BY_SOCKETCALL:
        return features->udp;
    case UDP_TOLD:
        return features->udp && features->transparent;
    case STANDINS:
        return features->standins;
    case WATCHED:
        return features->strict || features->standins;
    case TOLD:
        return features->transparent || features->standins;
    case FAST_OPENED:
    case ALWAYS:
        break;
    }
    return true;
}

#define CALL(name) offsetof(struct numbers, name)

static const struct row {
    size_t call;
    uint64_t args[6];
    enum when when;
    uint32_t action;
} rows[] = {
    /* domain, type, protocol */
    {CALL(socket), {AF_INET, SOCK_STREAM, 0}, CREATE, NOTIFY},
    {CALL(socket), {AF_INET6, SOCK_STREAM, 0}, CREATE, NOTIFY},
    {CALL(socket), {AF_INET, SOCK_STREAM, IPPROTO_TCP}, CREATE, NOTIFY},
    {CALL(socket), {AF_INET6, SOCK_STREAM, MPTCP}, CREATE, NOTIFY},
    {CALL(socket), {AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0}, CREATE, NOTIFY},
    {CALL(socket), {HIGH | AF_INET, HIGH | SOCK_STREAM, HIGH}, CREATE, NOTIFY},
    {CALL(socket), {AF_INET, SOCK_STREAM, IPPROTO_TCP - 1}, ALWAYS, ALLOW},
    {CALL(socket), {AF_INET, SOCK_STREAM, IPPROTO_TCP + 1}, ALWAYS, ALLOW},
    {CALL(socket), {AF_INET, SOCK_STREAM, MPTCP - 1}, ALWAYS, ALLOW},
    {CALL(socket), {AF_INET, SOCK_STREAM, 132 /* SCTP */}, ALWAYS, ALLOW},
    {CALL(socket), {AF_INET, SOCK_DGRAM, 0}, ALWAYS, ALLOW},
    {CALL(socket), {AF_INET, SOCK_RAW, IPPROTO_TCP}, ALWAYS, ALLOW},
    {CALL(socket), {AF_INET, SOCK_SEQPACKET, 0}, ALWAYS, ALLOW},
    {CALL(socket), {AF_INET, 0, 0}, ALWAYS, ALLOW},
    {CALL(socket), {AF_UNIX, SOCK_STREAM, 0}, ALWAYS, ALLOW},
    {CALL(socket), {AF_INET - 1, SOCK_STREAM, 0}, ALWAYS, ALLOW},
    {CALL(socket), {AF_INET + 1, SOCK_STREAM, 0}, ALWAYS, ALLOW},
    {CALL(socket), {AF_INET6 - 1, SOCK_STREAM, 0}, ALWAYS, ALLOW},
    {CALL(socket), {AF_INET6 + 1, SOCK_STREAM, 0}, ALWAYS, ALLOW},
    {CALL(socket), {AF_NETLINK, SOCK_RAW, 0}, ALWAYS, ALLOW},
    {CALL(socket), {UINT32_MAX, SOCK_STREAM, 0}, ALWAYS, ALLOW},
    /* fd, address, length */
    {CALL(connect), {3, 0x1000, 16}, ALWAYS, NOTIFY},
    {CALL(connect), {3, 0x1000, 28}, ALWAYS, NOTIFY},
    {CALL(connect), {3, 0x1000, 109}, ALWAYS, NOTIFY},
    {CALL(connect), {3, 0x1000, 111}, ALWAYS, NOTIFY},
    {CALL(connect), {3, 0x1000, 128}, ALWAYS, NOTIFY},
    {CALL(connect), {3, 0x1000, HIGH | 16}, ALWAYS, NOTIFY},
    {CALL(connect), {3, 0x1000, 0}, WATCHED, NOTIFY},
    {CALL(connect), {3, 0x1000, 2}, WATCHED, NOTIFY},
    {CALL(connect), {3, 0x1000, 15}, WATCHED, NOTIFY},
    /* the length of a unix socket's address says nothing: the family is in memory */
    {CALL(connect), {3, 0x1000, 110}, ALWAYS, NOTIFY},
    {CALL(connect), {3, 0x1000, 129}, WATCHED, NOTIFY},
    {CALL(connect), {3, 0x1000, INT32_MAX}, WATCHED, NOTIFY},
    {CALL(connect), {3, 0x1000, UINT32_MAX}, WATCHED, NOTIFY},
    {CALL(connect), {3, 0x1000, 0x80000010}, WATCHED, NOTIFY},
    {CALL(bind), {3, 0x1000, 15}, ALWAYS, ALLOW},
    {CALL(bind), {3, 0x1000, 16}, ALWAYS, NOTIFY},
    {CALL(bind), {3, 0x1000, 28}, ALWAYS, NOTIFY},
    {CALL(bind), {3, 0x1000, 109}, ALWAYS, NOTIFY},
    {CALL(bind), {3, 0x1000, 110}, ALWAYS, NOTIFY},
    {CALL(bind), {3, 0x1000, 111}, ALWAYS, NOTIFY},
    {CALL(bind), {3, 0x1000, 128}, ALWAYS, NOTIFY},
    {CALL(bind), {3, 0x1000, 129}, ALWAYS, ALLOW},
    {CALL(bind), {3, 0x1000, UINT32_MAX}, ALWAYS, ALLOW},
    {CALL(listen), {3, 0}, ALWAYS, NOTIFY},
    {CALL(listen), {UINT32_MAX, UINT32_MAX}, ALWAYS, NOTIFY},
    /* fd, buffer, length, flags, address, its length */
    {CALL(sendto), {3, 0, 1, 0, 0, 16}, ALWAYS, ALLOW},
    {CALL(sendto), {3, 0, 1, 0, 0x1000, 16}, UDP, NOTIFY},
    {CALL(sendto), {3, 0, 1, 0, 0x1000, 0}, UDP, NOTIFY},
    {CALL(sendto), {3, 0, 1, 0, HIGH, 16}, UDP, NOTIFY},
    {CALL(sendto), {3, 0, 1, FAST_OPEN, 0, 0}, FAST_OPENED, NOTIFY},
    {CALL(sendto), {3, 0, 1, HIGH | FAST_OPEN, 0, 0}, FAST_OPENED, NOTIFY},
    {CALL(sendto), {3, 0, 1, UINT32_MAX, 0x1000, 16}, FAST_OPENED, NOTIFY},
    {CALL(sendto), {3, 0, FAST_OPEN, ~FAST_OPEN, 0, 0}, ALWAYS, ALLOW},
    /* fd, message, flags; sendmmsg: fd, messages, how many, flags */
    {CALL(sendmsg), {3, 0, 0, FAST_OPEN}, UDP, NOTIFY},
    {CALL(sendmsg), {3, 0, FAST_OPEN | MSG_NOSIGNAL, 0}, FAST_OPENED, NOTIFY},
    {CALL(sendmmsg), {3, 0, FAST_OPEN, 0}, UDP, NOTIFY},
    {CALL(sendmmsg), {3, 0, 1, FAST_OPEN}, FAST_OPENED, NOTIFY},
    {CALL(recvfrom), {3, 0x1000, 1, 0, 0, 0x1000}, ALWAYS, ALLOW},
    {CALL(recvfrom), {3, 0x1000, 1, 0, 0x1000, 0}, UDP_TOLD, NOTIFY},
    {CALL(recvfrom), {3, 0x1000, 1, 0, HIGH, 0}, UDP_TOLD, NOTIFY},
    {CALL(recvmsg), {3, 0x1000, 0}, UDP_TOLD, NOTIFY},
    {CALL(recvmmsg), {3, 0x1000, 1, 0, 0}, UDP_TOLD, NOTIFY},
    {CALL(recvmmsg_time64), {3, 0x1000, 1, 0, 0}, UDP_TOLD, NOTIFY},
    {CALL(getpeername), {3, 0x1000, 0x1000}, TOLD, NOTIFY},
    /* fd, level, name */
    {CALL(getsockopt), {3, 0, 1}, STANDINS, NOTIFY},
    {CALL(getsockopt), {3, 6, 11}, STANDINS, NOTIFY},
    {CALL(getsockopt), {3, 41, 26}, STANDINS, NOTIFY},
    {CALL(getsockopt), {3, 284, 1}, STANDINS, NOTIFY},
    {CALL(getsockopt), {3, HIGH | 6, HIGH | 11}, STANDINS, NOTIFY},
    {CALL(getsockopt), {3, 1, 39 /* SO_DOMAIN */}, STANDINS, NOTIFY},
    {CALL(getsockopt), {3, 1, 38 /* SO_PROTOCOL */}, STANDINS, NOTIFY},
    {CALL(getsockopt), {3, 1, 57 /* SO_COOKIE */}, STANDINS, NOTIFY},
    {CALL(getsockopt), {3, 1, 4 /* SO_ERROR */}, ALWAYS, ALLOW},
    {CALL(getsockopt), {3, 17, 39}, STANDINS, NOTIFY},
    {CALL(setsockopt), {3, 6, 1}, STANDINS, NOTIFY},
    {CALL(setsockopt), {3, 0, 1}, STANDINS, NOTIFY},
    {CALL(setsockopt), {3, 1, 39}, ALWAYS, ALLOW},
    {CALL(getsockname), {3}, STANDINS, NOTIFY},
    {CALL(epoll_ctl), {3, 1, 4}, STANDINS, NOTIFY},
    {CALL(landlock_restrict_self), {3, 0}, ALWAYS, NOTIFY},
    {CALL(io_uring_setup), {8, 0x1000}, NO_IO_URING, FAIL(ENOSYS)},
    /* the call's number there: socket 1, bind 2, connect 3, listen 4, accept 5, send 9, ... */
    {CALL(socketcall), {0}, ALWAYS, ALLOW},
    {CALL(socketcall), {1}, CREATE, NOTIFY},
    {CALL(socketcall), {2}, ALWAYS, NOTIFY},
    {CALL(socketcall), {3}, ALWAYS, NOTIFY},
    {CALL(socketcall), {HIGH | 3}, ALWAYS, NOTIFY},
    {CALL(socketcall), {11}, SENT_BY_SOCKETCALL, NOTIFY},
    {CALL(socketcall), {16}, SENT_BY_SOCKETCALL, NOTIFY},
    {CALL(socketcall), {4}, ALWAYS, NOTIFY},
    {CALL(socketcall), {5}, ALWAYS, ALLOW},
    {CALL(socketcall), {20}, SENT_BY_SOCKETCALL, NOTIFY},
    {CALL(socketcall), {12}, UDP_TOLD, NOTIFY},
    {CALL(socketcall), {17}, UDP_TOLD, NOTIFY},
    {CALL(socketcall), {19}, UDP_TOLD, NOTIFY},
    {CALL(socketcall), {6}, STANDINS, NOTIFY},
    {CALL(socketcall), {7}, TOLD, NOTIFY},
    {CALL(socketcall), {14}, STANDINS, NOTIFY},
    {CALL(socketcall), {15}, STANDINS, NOTIFY},
    {CALL(socketcall), {10}, ALWAYS, ALLOW},
    {CALL(socketcall), {UINT32_MAX}, ALWAYS, ALLOW},
};

static int number_of(const struct numbers *abi, size_t call)
{
    int nr;

    memcpy(&nr, (const uint8_t *)abi + call, sizeof(nr));
    return nr;
}

static uint32_t expected_of(const struct row *row, const struct mfd_filter_features *features)
{
    if (row->when == FAST_OPENED && (features->strict || features->standins))
        return FAIL(EOPNOTSUPP);
    if (row->when == SENT_BY_SOCKETCALL && features->strict && !features->udp)
        return FAIL(ENOSYS);
    return holds(row->when, features) ? row->action : ALLOW;
}

static void calls_of_the_table_get_their_answers(struct run *run,
                                                 const struct mfd_filter_features *features)
{
    for (size_t i = 0; i < MFD_COUNT(abis); i++) {
        for (size_t j = 0; j < MFD_COUNT(rows); j++) {
            int nr = number_of(&abis[i], rows[j].call);
            char about[80];

            if (nr < 0)
                continue;
            (void)snprintf(about, sizeof(about), "%s call %d, row %zu%s%s%s%s", abis[i].name, nr, j,
                           features->create ? ", create" : "", features->strict ? ", strict" : "",
                           features->udp ? ", udp" : "",
                           features->transparent ? ", transparent" : "");
            check_about = about;
            CHECK_EQ(result_of(run, abis[i].arch, nr, rows[j].args),
                     expected_of(&rows[j], features));
            check_about = "";
        }
    }
}

static bool is_looked_at(const struct numbers *abi, int nr,
                         const struct mfd_filter_features *features)
{
    bool tells = nr == abi->getsockname || nr == abi->getpeername || nr == abi->setsockopt ||
                 nr == abi->getsockopt || nr == abi->epoll_ctl;

    return (features->standins && tells) ||
           (!features->io_uring && nr >= abi->io_uring_setup && nr <= abi->io_uring_setup + 2) ||
           nr == abi->connect || nr == abi->socketcall || (features->create && nr == abi->socket) ||
           nr == abi->bind || nr == abi->listen || nr == abi->landlock_restrict_self ||
           nr == abi->sendto || nr == abi->sendmsg || nr == abi->sendmmsg ||
           (features->udp && features->transparent &&
            (nr == abi->recvfrom || nr == abi->recvmsg || nr == abi->recvmmsg ||
             nr == abi->recvmmsg_time64)) ||
           (features->transparent && nr == abi->getpeername);
}

/* The kernel answers those from a bitmap then, without running the filter. */
static void
other_calls_are_allowed_by_their_number_alone(struct run *run,
                                              const struct mfd_filter_features *features)
{
    static const uint64_t args[6] = {AF_INET, SOCK_STREAM, 16, FAST_OPEN};

    for (size_t i = 0; i < MFD_COUNT(abis); i++) {
        for (int nr = 0; nr <= 600; nr++) {
            if (is_looked_at(&abis[i], nr, features))
                continue;
            CHECK_EQ(result_of(run, abis[i].arch, nr, args), ALLOW);
            CHECK(!run->loaded_arguments);
        }
    }
}

static void foreign_abis_find_no_call_at_all(struct run *run)
{
    static const uint32_t foreign[] = {
        0,
        1,
        UINT32_MAX,
        AUDIT_ARCH_MIPS,
        AUDIT_ARCH_PPC64LE,
        AUDIT_ARCH_RISCV64,
        AUDIT_ARCH_S390X,
#if defined(__x86_64__)
        AUDIT_ARCH_AARCH64,
        AUDIT_ARCH_ARM,
        EM_X86_64,
        EM_386,
#else
        AUDIT_ARCH_X86_64,
        AUDIT_ARCH_I386,
        EM_AARCH64,
#endif
    };
    static const uint64_t args[6] = {AF_UNIX, SOCK_DGRAM, 0, 0};

    for (size_t i = 0; i < MFD_COUNT(foreign); i++)
        for (int nr = 0; nr <= 450; nr++)
            CHECK_EQ(result_of(run, foreign[i], nr, args), FAIL(ENOSYS));
#if defined(__x86_64__)
    for (int nr = 0; nr <= 600; nr++) { /* x32: the native architecture, and bit 30 */
        CHECK_EQ(result_of(run, AUDIT_ARCH_X86_64, nr | 0x40000000, args), FAIL(ENOSYS));
        CHECK(!run->loaded_arguments);
    }
    CHECK_EQ(result_of(run, AUDIT_ARCH_X86_64, 0x3fffffff, args), ALLOW);
    CHECK_EQ(result_of(run, AUDIT_ARCH_X86_64, -1, args), ALLOW); /* skipped by a tracer */
#endif
}

/* In a child, which ends by exit_group(2): no filter traps that. */
static void the_kernel_takes_it(const struct run *run)
{
    struct sock_filter program[MFD_FILTER_MAX];
    struct sock_fprog given = {.len = (unsigned short)run->n, .filter = program};
    int status = 0;
    pid_t pid;

    memcpy(program, run->program, sizeof(program));
    pid = fork();
    NEED(pid >= 0);
    if (pid == 0) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
            _exit(1);
        _exit(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &given) < 0 ? 2 : 0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_EQ(status, 0);
}

static bool kernel_has_seccomp(void)
{
    uint32_t action = SECCOMP_RET_ALLOW;

    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

int main(void)
{
    bool is_real = kernel_has_seccomp();

    if (!is_real)
        check_skip("the kernel's own check of filters");
    for (unsigned combination = 0; combination < 64; combination++) {
        struct mfd_filter_features features = {
            .create = (combination & 1) != 0,
            .strict = (combination & 2) != 0,
            .io_uring = (combination & 4) != 0,
            .udp = (combination & 8) != 0,
            .transparent = (combination & 16) != 0,
            .standins = (combination & 32) != 0,
        };
        struct run run = {0};

        run.n = mfd_filter_build(&features, run.program);
        CHECK(run.n > 0 && run.n <= MFD_FILTER_MAX);
        calls_of_the_table_get_their_answers(&run, &features);
        other_calls_are_allowed_by_their_number_alone(&run, &features);
        foreign_abis_find_no_call_at_all(&run);
        if (is_real)
            the_kernel_takes_it(&run);
    }
    return check_result();
}
