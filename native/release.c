/* release.c - give up the agent's hold on a program's socket
 *
 * Theory of operation: the agent holds a duplicate of a program's socket for as long as it looks at it. When
 * another thread of the program closes the socket meanwhile, the agent's close is the last; and with SO_LINGER
 * that would wait for what was sent to arrive (net/ipv4/tcp.c, __tcp_close), and all of the service with the
 * agent. A process that ends does not linger (net/ipv4/af_inet.c, inet_release: PF_EXITING): so the duplicate of
 * such a socket is left to a child, which shares the agent's memory but has a table of fds of its own, and is
 * killed when the agent has closed its fd. What was sent is delivered all the same.
 *
 * A linger time of 0, which resets the connection, never waits, and is left as it is. A time without end, which
 * is set by a negative number, reads as some other one, most often negative (net/core/sock.c, sk_getsockopt).
 * Limits: where there can be no child, lingering is switched off.
 * Source: socket(7) SO_LINGER, clone(2). */
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "meshfd.h"

#define STACK_SIZE 4096

static bool lingers(int fd)
{
    struct linger linger = {0};
    socklen_t size = sizeof(linger);

    return getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &size) == 0 && linger.l_onoff != 0 &&
           linger.l_linger != 0;
}

static int hold(void *argument)
{
    (void)argument;
    while (pause() < 0) /* it returns in no other way */
        continue;
    return 0;
}

/* Every hold of ours but the child's is gone before it ends. */
static void close_in_child(int fd)
{
    static _Alignas(16) char stack[STACK_SIZE]; /* one child at a time */
    static const struct linger never = {0};
    pid_t pid = clone(hold, stack + sizeof(stack), CLONE_VM, NULL);

    if (pid < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &never, sizeof(never));
    (void)close(fd);
    if (pid < 0)
        return;
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, __WALL);
}

/* mfd_release_at - close an fd that may be a program's socket, without waiting; errno is kept */
void mfd_release_at(int *fd)
{
    int saved = errno;
    int released = mfd_take_fd(fd);

    if (released >= 0 && lingers(released))
        close_in_child(released);
    else if (released >= 0)
        (void)close(released);
    errno = saved;
}
