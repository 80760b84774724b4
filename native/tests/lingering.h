/* lingering.h - a connected socket of which a close can wait for what was sent to arrive (SO_LINGER) */
#ifndef MESHFD_LINGERING_H
#define MESHFD_LINGERING_H

#include "check.h"

#define LINGER_S 3600 /* far past the time that a test program has */
#define FOREVER (-1)

struct pair {
    int client;
    int server;
};

static inline struct pair connected(void)
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

static inline void set_linger(int fd, int seconds)
{
    struct linger linger = {.l_onoff = 1, .l_linger = seconds};

    NEED(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
}

/* Send until the other end's room is full, too. Return: bytes. */
static inline size_t fill(int fd)
{
    static const char block[65536];
    size_t sent = 0;
    ssize_t n;

    while ((n = send(fd, block, sizeof(block), MSG_DONTWAIT)) > 0)
        sent += (size_t)n;
    NEED(errno == EAGAIN);
    return sent;
}

/* Its close, if it is the last, waits for as long as the other end does not read. */
static inline struct pair lingering(void)
{
    struct pair pair = connected();

    (void)fill(pair.client);
    set_linger(pair.client, FOREVER);
    return pair;
}

#endif
