/* sink.c - sink: accept and close, as fast as possible; prints its port first
 *
 * Ends when standard input does. */
#include <pthread.h>

#include "say.h"

static void *accept_all(void *argument)
{
    int listening = *(int *)argument;

    for (;;) {
        int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);

        if (fd >= 0)
            close(fd);
    }
    return NULL;
}

int main(void)
{
    struct address address = address_of("127.0.0.1", "0");
    int fd = tcp_socket(&address, SOCK_CLOEXEC);
    pthread_t thread;

    sure("bind", bind(fd, sockaddr_of(&address), address.length));
    sure("listen", listen(fd, SOMAXCONN));
    sure("getsockname", getsockname(fd, (void *)&address.storage, &address.length));
    printf("port: %d\n", ntohs(((struct sockaddr_in *)&address.storage)->sin_port));
    fflush(stdout);
    sure("pthread_create", -pthread_create(&thread, NULL, accept_all, &fd));
    while (wait_line())
        continue;
    return 0;
}
