/* Release: a close that would linger does not wait, and what was sent arrives; others are closes like any. */
#include <sys/wait.h>

#include "check.h"

#define LINGER_S 3600 /* far past the time that a test program has */
#define FOREVER (-1)

struct pair {
    int client;
    int server;
};

static struct pair connected(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    MFD_CLOSE int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct pair result = {.client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};

    NEED(listening >= 0 && result.client >= 0);
    NEED(bind(listening, (struct sockaddr *)&address, sizeof(address)) == 0);
    NEED(listen(listening, 1) == 0);
    NEED(getsockname(listening, (struct sockaddr *)&address, &length) == 0);
    NEED(connect(result.client, (struct sockaddr *)&address, sizeof(address)) == 0);
    result.server = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    NEED(result.server >= 0);
    return result;
}

static void set_linger(int fd, int seconds)
{
    struct linger linger = {.l_onoff = 1, .l_linger = seconds};

    NEED(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
}

/* Send until the other end's room is full, too. Return: bytes. */
static size_t fill(int fd)
{
    static const char block[65536];
    size_t sent = 0;
    ssize_t n;

    while ((n = send(fd, block, sizeof(block), MSG_DONTWAIT)) > 0)
        sent += (size_t)n;
    NEED(errno == EAGAIN);
    return sent;
}

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
