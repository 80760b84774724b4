/* background.c - background HOST PORT: a daemon that goes into the background once it listens
 *
 * To a client that sends "?" it says "hello"; on "q" it closes its listening socket, says "closed",
 * and ends when that client does. */
#include <signal.h>

#include "say.h"

static void leave_terminal(void)
{
    int null_fd = sure("open", open("/dev/null", O_RDWR | O_CLOEXEC));

    sure("setsid", setsid());
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        sure("dup2", dup2(null_fd, fd));
}

static void serve(int listening)
{
    char question;

    for (;;) {
        int client = sure("accept", accept4(listening, NULL, NULL, SOCK_CLOEXEC));

        if (read(client, &question, 1) != 1)
            question = '\0';
        if (question == 'q') {
            close(listening);
            sure("write", (int)write(client, "closed\n", 7));
            (void)!read(client, &question, 1);
            return;
        }
        sure("write", (int)write(client, "hello\n", 6));
        close(client);
    }
}

int main(int argc, char **argv)
{
    struct address address = address_of(argv[1], argv[2]);
    const int on = 1;
    int fd = tcp_socket(&address, SOCK_CLOEXEC);

    (void)argc;
    (void)signal(SIGPIPE, SIG_IGN);
    sure("SO_REUSEADDR", setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)));
    sure("bind", bind(fd, sockaddr_of(&address), address.length));
    sure("listen", listen(fd, 16));
    if (sure("fork", fork()) > 0)
        return 0;
    leave_terminal();
    serve(fd);
    return 0;
}
