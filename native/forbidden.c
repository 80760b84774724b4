/* forbidden.c - ports that programs have forbidden themselves
 *
 * Theory of operation: a Landlock rule says which TCP ports a program may still connect and bind to, and the
 * kernel holds it against whoever makes the call. What the agent makes in a program's stead would escape. So
 * the agent looks at landlock_restrict_self(): it takes the ruleset's fd, and a child of the agent confines
 * itself by it and tries every port once, on addresses that lead nowhere. What is refused with EACCES is
 * noted in a set that all children share; then the program's call goes on. A ruleset cannot be read, and the
 * kernel answers no question about another's; this asks the kernel's own code.
 *
 * The set is the service's: whose a rule is cannot be told later, for it passes to all descendants. So the
 * agent does nothing about a port that anybody has forbidden himself: it leaves the call to the kernel, which
 * knows who asks (connect.c, activation.c).
 *
 *   queued     the call was received; its ruleset is held
 *   probing    a child tries the ports; about 40 ms
 *   answered   CONTINUE: the program's own call confines it
 *
 * A child that fails, or a ruleset out of the agent's reach: every port counts as forbidden, for ever. Where fds,
 * memory or processes are used up for the moment, the call fails with ENOMEM instead. What is no ruleset is the
 * kernel's to refuse, and not held for a moment: it may be a connection that is to end.
 * Limits: PROBES_MAX children at a time, MFD_RESTRICTS_MAX calls; more fail with ENOMEM. Rules are about TCP.
 * Source: landlock(7); security/landlock/net.c; net/ipv4/tcp_ipv4.c (a broadcast address: ENETUNREACH) and
 * af_inet.c (an address that is not this host's: EADDRNOTAVAIL): both after Landlock was asked. */
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "kernel.h"
#include "meshfd.h"

#define PROBES_MAX 4
#define PORTS 65536
#define BITS 8
#define NOT_OURS 0xc0000201 /* 192.0.2.1, of a network for documentation (RFC 5737) */

struct mfd_forbidden_ports { /* a bit a port; shared with the children */
    atomic_uchar connect[PORTS / BITS];
    atomic_uchar bind[PORTS / BITS];
};

/* mfd_forbidden_open - nothing is forbidden
 * Return: 0 or -errno. */
int mfd_forbidden_open(struct mfd_forbidden *forbidden)
{
    void *ports = mmap(NULL, sizeof(*forbidden->ports), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (ports == MAP_FAILED)
        return -errno;
    forbidden->ports = ports;
    forbidden->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return forbidden->epoll_fd < 0 ? -errno : 0;
}

static void forbid_all(struct mfd_forbidden *forbidden)
{
    memset(forbidden->ports, 0xff, sizeof(*forbidden->ports));
}

static bool has(const atomic_uchar *bits, uint16_t port)
{
    return (bits[port / BITS] >> port % BITS & 1) != 0;
}

/* mfd_forbidden_connects - may a program of the service not connect to this port? */
bool mfd_forbidden_connects(const struct mfd_agent *agent, uint16_t port)
{
    return has(agent->forbidden.ports->connect, port);
}

/* mfd_forbidden_binds - may a program of the service not bind this port? */
bool mfd_forbidden_binds(const struct mfd_agent *agent, uint16_t port)
{
    return has(agent->forbidden.ports->bind, port);
}

/* --- in the child ----------------------------------------------------------------------------------------- */

typedef int port_call(int fd, const struct sockaddr *address, socklen_t length);

static void probe(int fd, port_call *call, uint32_t host, atomic_uchar *bits)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(host)};

    for (unsigned port = 0; port < PORTS; port++) {
        address.sin_port = htons((uint16_t)port);
        /* other children set bits in the same bytes */
        if (call(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 && errno == EACCES)
            atomic_fetch_or(&bits[port / BITS], (unsigned char)(1U << port % BITS));
    }
}

/* It keeps nothing of the agent's open: what the agent closes meanwhile has to be closed. So it shares the agent's table
 * of fds, and leaves it with none of them. */
static _Noreturn void run_child(struct mfd_forbidden_ports *ports, int ruleset_fd)
{
    int fd;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        _exit(1);
    /* 65,536 refusals are nobody's concern; before Linux 6.15 they are not logged anyway */
    if (syscall(SYS_landlock_restrict_self, ruleset_fd, MFD_LANDLOCK_LOG_SAME_EXEC_OFF) < 0 &&
        syscall(SYS_landlock_restrict_self, ruleset_fd, 0) < 0)
        _exit(0); /* no ruleset, or one more than fits: the program is told so */
    if (close_range(0, ~0U, CLOSE_RANGE_UNSHARE) < 0)
        _exit(1);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        _exit(1);
    probe(fd, connect, INADDR_BROADCAST, ports->connect);
    probe(fd, bind, NOT_OURS, ports->bind);
    _exit(0);
}

/* --- in the agent ----------------------------------------------------------------------------------------- */

/* A child that the agent's other children (children.c) have nothing to do with: its end sends no signal.
 * Return: its pidfd, or -errno. */
static int start_child(struct mfd_forbidden *forbidden, int ruleset_fd)
{
    int pidfd = -1;
    long pid = syscall(SYS_clone, CLONE_PIDFD | CLONE_FILES, NULL, &pidfd, NULL, 0);

    if (pid < 0)
        return -errno;
    if (pid == 0)
        run_child(forbidden->ports, ruleset_fd);
    return pidfd;
}

/* Return: whether it has ended well. */
static bool reap(int pidfd)
{
    siginfo_t info = {0};

    return waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | __WALL) == 0 &&
           info.si_code == CLD_EXITED && info.si_status == 0;
}

static int begin(struct mfd_forbidden *forbidden, unsigned index)
{
    struct mfd_restrict *one = &forbidden->calls[index];
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
    MFD_CLOSE int pidfd = start_child(forbidden, one->ruleset_fd);

    if (pidfd < 0)
        return pidfd;
    if (epoll_ctl(forbidden->epoll_fd, EPOLL_CTL_ADD, pidfd, &event) < 0) {
        int error = -errno;

        (void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        (void)reap(pidfd);
        return error;
    }
    one->pidfd = mfd_take_fd(&pidfd);
    forbidden->n_probing++;
    return 0;
}

/* Is an error one that may be none the next time? */
static bool is_passing(int error)
{
    return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -EAGAIN ||
           error == -ENOSPC;
}

/* The call is over for us; its place is free. @error: what it fails with; 0: it goes on */
static void finish(struct mfd_agent *agent, struct mfd_restrict *one, int error)
{
    struct mfd_notification call = one->call;

    if (one->pidfd >= 0) /* an older kernel gives a child copies of some fds, to close at once */
        (void)epoll_ctl(agent->forbidden.epoll_fd, EPOLL_CTL_DEL, one->pidfd, NULL);
    mfd_close_at(&one->ruleset_fd);
    mfd_close_at(&one->pidfd);
    one->used = false;
    if (call.listener < 0)
        return;
    if (error < 0)
        mfd_answer(agent, &call, error);
    else
        mfd_answer_continue(agent, &call);
}

static void begin_some(struct mfd_agent *agent)
{
    struct mfd_forbidden *forbidden = &agent->forbidden;

    for (unsigned i = 0; i < MFD_RESTRICTS_MAX && forbidden->n_probing < PROBES_MAX; i++) {
        struct mfd_restrict *one = &forbidden->calls[i];
        int error = 0;

        if (!one->used || one->pidfd >= 0)
            continue;
        if (mfd_notify_is_alive(&one->call)) {
            error = begin(forbidden, i);
            if (error == 0)
                continue;
            if (!is_passing(error))
                forbid_all(forbidden);
        }
        finish(agent, one, is_passing(error) ? -ENOMEM : 0);
    }
}

static struct mfd_restrict *find_free(struct mfd_forbidden *forbidden)
{
    for (unsigned i = 0; i < MFD_RESTRICTS_MAX; i++)
        if (!forbidden->calls[i].used)
            return &forbidden->calls[i];
    return NULL;
}

/* The kernel looks at the file before it looks at what kind of rule is to be added, which is none here. */
static bool is_ruleset(int fd)
{
    return syscall(SYS_landlock_add_rule, fd, 0, NULL, 0) == 0 ||
           (errno != EBADF && errno != EBADFD);
}

/* mfd_restrict_handle - answer landlock_restrict_self(), by and by */
void mfd_restrict_handle(struct mfd_agent *agent, const struct mfd_notification *call)
{
    struct mfd_restrict *one = find_free(&agent->forbidden);
    MFD_RELEASE int ruleset_fd = -1; /* whatever the program calls one */
    int error = -ESRCH;

    if (one == NULL) {
        mfd_answer(agent, call, -ENOMEM);
        return;
    }
    /* from a pid namespace that we do not see into, it makes its connections itself, too */
    if (call->pid != 0)
        error = mfd_target_open_fd(call->pid, (int)call->call.args[0], &ruleset_fd);
    if (is_passing(error)) {
        mfd_account_unseen(agent, call, error, NULL);
        mfd_answer(agent, call, -ENOMEM);
        return;
    }
    if (error < 0 && error != -ESRCH && error != -EBADF)
        forbid_all(&agent->forbidden);
    if (error < 0 || !is_ruleset(ruleset_fd)) {
        mfd_release_at(&ruleset_fd); /* before the answer */
        mfd_answer_continue(agent, call);
        return;
    }
    *one = (struct mfd_restrict){
        .used = true, .call = *call, .ruleset_fd = mfd_take_fd(&ruleset_fd), .pidfd = -1};
    begin_some(agent);
}

/* mfd_forbidden_run - the epoll instance is readable: children have ended */
void mfd_forbidden_run(struct mfd_agent *agent)
{
    struct mfd_forbidden *forbidden = &agent->forbidden;
    struct epoll_event events[PROBES_MAX];
    int n = epoll_wait(forbidden->epoll_fd, events, PROBES_MAX, 0);

    for (int i = 0; i < n; i++) {
        struct mfd_restrict *one = &forbidden->calls[events[i].data.u32];

        if (!reap(one->pidfd))
            forbid_all(forbidden);
        forbidden->n_probing--;
        finish(agent, one, 0);
    }
    begin_some(agent);
}

/* mfd_forbidden_forget - the listener is about to be closed, its targets are gone */
void mfd_forbidden_forget(struct mfd_agent *agent, int listener)
{
    struct mfd_forbidden *forbidden = &agent->forbidden;

    for (unsigned i = 0; i < MFD_RESTRICTS_MAX; i++) {
        struct mfd_restrict *one = &forbidden->calls[i];

        if (!one->used || one->call.listener != listener)
            continue;
        one->call.listener = -1;
        if (one->pidfd < 0)
            finish(agent, one, 0);
    }
}
