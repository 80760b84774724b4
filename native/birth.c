/* birth.c - make a socket where a program's own would belong
 *
 * Theory of operation: a socket belongs for ever to the cgroup (version 2) and the network namespace of the task that
 * makes it. The agent is in the service's cgroup, and can go to the namespace (netns.c). A program that has
 * moved to another cgroup usually makes its sockets itself (sockets.c); only one that is to have a socket of
 * a namespace which it is not in cannot. Then a child of ours is born in the program's cgroup, makes it, sends it
 * here, and ends: some hundred microseconds, and nothing is kept.
 *
 * MOVE, in three parts.
 *   proposed   SECCOMP_ADDFD_FLAG_MOVE was to give a socket that is added to a program the net_cls and net_prio
 *              (version 1) of that program; it was not merged
 *   mainline   ADDFD gives them always (receive_fd, __receive_sock); but who takes the socket up later gives it
 *              its own, and nothing ever changes its cgroup of version 2, network namespace or user
 *   here       so a socket is made where it belongs in all of that (this file, netns.c, identity.c), is closed by us
 *              when the program has it, but for a lease (leases.c), and keeps its class when we take it up (class.c)
 *
 * The socket is of the user and group that the program has at that moment (identity.c).
 *
 * In such a cgroup a process may be one too many (pids.max), or hardly run (cpu.max). The child has WAIT_MS; then it is
 * killed, and there is no socket. Nobody else of the service is served meanwhile.
 * Source: clone(2) CLONE_INTO_CGROUP, cgroups(7), unix(7) SCM_RIGHTS. */
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "kernel.h"
#include "meshfd.h"

#define WAIT_MS 100

static int make_as_program(const struct mfd_netns *netns, const struct mfd_wish *wish)
{
    struct mfd_file_identity own;
    int fd;

    mfd_identity_enter_files(wish->pid, &own);
    fd = mfd_netns_socket(netns, wish->netns, wish->domain, wish->type, wish->protocol);
    mfd_identity_leave_files(&own);
    return fd;
}

/* --- in the child ------------------------------------------------------------------------------------------ */

/* A packet is the errno, with the socket if there is none. */
static void send_result(int channel, int result)
{
    int error = result < 0 ? -result : 0;

    (void)mfd_rights_send(channel, &error, sizeof(error), &result, error == 0, 0);
}

static _Noreturn void make_and_send(const struct mfd_netns *netns, const struct mfd_wish *wish,
                                    int channel)
{
    send_result(channel, make_as_program(netns, wish));
    _exit(0);
}

/* --- in the agent ------------------------------------------------------------------------------------------ */

static int receive_result(int channel)
{
    struct pollfd polled = {.fd = channel, .events = POLLIN};
    size_t n_fds = 1;
    int fd = -1;
    int error;
    ssize_t n;

    if (poll(&polled, 1, WAIT_MS) != 1)
        return -EAGAIN;
    n = mfd_rights_receive(channel, &error, sizeof(error), &fd, &n_fds, MSG_DONTWAIT);
    if (n == -EMFILE) /* it is we who have no number for it */
        return -EMFILE;
    if (n != sizeof(error))
        return -EAGAIN;
    return error != 0 ? -error : fd;
}

static int make_by_child(const struct mfd_netns *netns, const struct mfd_wish *wish, int cgroup_fd)
{
    struct clone_args args = {.flags = CLONE_INTO_CGROUP, .cgroup = (unsigned)cgroup_fd};
    int channel[2];
    int result = -EAGAIN;
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) < 0)
        return -errno;
    /* no exit signal: it is reaped here, and children.c never hears of it (__WCLONE) */
    pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
    if (pid == 0)
        make_and_send(netns, wish, channel[1]);
    (void)close(channel[1]);
    if (pid > 0) {
        result = receive_result(channel[0]);
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, (int)__WCLONE);
    }
    (void)close(channel[0]);
    return result;
}

static int make(const struct mfd_agent *agent, const struct mfd_wish *wish)
{
    MFD_CLOSE int cgroup_fd = -1;

    if (wish->is_here)
        return make_as_program(&agent->netns, wish);
    cgroup_fd = mfd_cgroup_open_of(wish->pid);
    return cgroup_fd < 0 ? -EAGAIN : make_by_child(&agent->netns, wish, cgroup_fd);
}

/* mfd_birth - socket(2) in this namespace, and in the program's own cgroup
 * Return: the fd, close-on-exec, owned by the caller; -EMFILE: we have none left; -EAGAIN: no process can be born in
 * its cgroup, or run there; what socket(2) says. */
int mfd_birth(struct mfd_agent *agent, const struct mfd_wish *wish)
{
    int fd = make(agent, wish);

    if (fd == -EMFILE) { /* it is the agent that has none left: make room once */
        mfd_leases_drop_all(&agent->leases);
        fd = make(agent, wish);
    }
    return fd;
}
