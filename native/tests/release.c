/* Release: a close that would linger does not wait, and what was sent arrives; others are closes like any. */
#include <sys/wait.h>

#include "lingering.h"

/* Return: bytes up to the end. */
static size_t drain(int fd)
{
    char block[65536];
    size_t received = 0;
    ssize_t n;

    while ((n = recv(fd, block, sizeof(block), 0)) > 0)
        received += (size_t)n;
    CHECK_EQ(n, 0);
    return received;
}

static void the_last_hold_does_not_linger(int seconds)
{
    struct pair pair = connected();
    size_t sent = fill(pair.client);

    set_linger(pair.client, seconds);
    errno = EXDEV;
    mfd_release_at(&pair.client);
    CHECK_EQ(errno, EXDEV);
    CHECK_EQ(pair.client, -1);
    CHECK_EQ(drain(pair.server), sent);
    mfd_close_at(&pair.server);
    CHECK_EQ(waitid(P_ALL, 0, &(siginfo_t){0}, WEXITED | __WALL), -1); /* no child is left */
    CHECK_EQ(errno, ECHILD);
}

static void a_socket_that_others_hold_lives_on(void)
{
    struct pair pair = connected();
    int duplicate = dup(pair.client);
    struct linger linger;
    socklen_t size = sizeof(linger);

    set_linger(pair.client, LINGER_S);
    mfd_release_at(&duplicate);
    CHECK_EQ(send(pair.client, "x", 1, 0), 1);
    CHECK_EQ(getsockopt(pair.client, SOL_SOCKET, SO_LINGER, &linger, &size), 0);
    CHECK_EQ(linger.l_linger, LINGER_S);
    mfd_release_at(&pair.client);
    CHECK_EQ(drain(pair.server), 1);
    mfd_close_at(&pair.server);
}

static void no_time_to_linger_resets(void)
{
    struct pair pair = connected();
    char byte;

    set_linger(pair.client, 0);
    mfd_release_at(&pair.client);
    CHECK_EQ(recv(pair.server, &byte, 1, 0), -1);
    CHECK_EQ(errno, ECONNRESET);
    mfd_close_at(&pair.server);
}

static void what_is_no_socket_is_closed(void)
{
    int fds[2];
    int none = -1;
    char byte;

    NEED(pipe(fds) == 0);
    mfd_release_at(&fds[1]);
    CHECK_EQ(read(fds[0], &byte, 1), 0);
    mfd_release_at(&fds[0]);
    mfd_release_at(&none);
    CHECK_EQ(none, -1);
}

int main(void)
{
    the_last_hold_does_not_linger(LINGER_S);
    the_last_hold_does_not_linger(FOREVER);
    a_socket_that_others_hold_lives_on();
    no_time_to_linger_resets();
    what_is_no_socket_is_closed();
    return check_result();
}
