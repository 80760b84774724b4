/* rewriting.c - rewriting MODE N ALLOWED DENIED: N blocking connects that a second thread changes
 *
 * ALLOWED and DENIED are ports of 127.0.0.1.
 * address: the port in the address is now the allowed one, now the denied one
 * datagram: likewise, and what is sent there is a datagram
 * file: the fd is now a unix socket, now a TCP socket; the address is the denied one
 * Connections are cut (SO_LINGER 0), so that no TIME_WAIT fills the port range. */
#include <pthread.h>
#include <stdatomic.h>

#include "say.h"

static struct address address;
static uint16_t ports[2];
static int files[2];
static int target_fd;
static atomic_bool over;

static void *rewrite_address(void *unused)
{
    volatile uint16_t *port = &((struct sockaddr_in *)&address.storage)->sin_port;

    (void)unused;
    for (unsigned i = 0; !over; i++)
        *port = ports[i % 2];
    return NULL;
}

static void *replace_file(void *unused)
{
    (void)unused;
    for (unsigned i = 0; !over; i++)
        sure("dup3", dup3(files[i % 2], target_fd, O_CLOEXEC));
    return NULL;
}

#define N_A_LINE 10000

static int dial_new(void)
{
    struct linger cut = {.l_onoff = 1};
    int fd = tcp_socket(&address, SOCK_CLOEXEC);
    int error = dial(fd, &address) < 0 ? errno : 0;

    sure("SO_LINGER", setsockopt(fd, SOL_SOCKET, SO_LINGER, &cut, sizeof(cut)));
    close(fd);
    return error;
}

static int send_datagram(void)
{
    return sendto(target_fd, "x", 1, 0, sockaddr_of(&address), address.length) < 0 ? errno : 0;
}

static int dial_replaced(void)
{
    return dial(target_fd, &address) < 0 ? errno : 0;
}

int main(int argc, char **argv)
{
    int (*attempt)(void) = strcmp(argv[1], "address") == 0    ? dial_new
                           : strcmp(argv[1], "datagram") == 0 ? send_datagram
                                                              : dial_replaced;
    int n_connected = 0, n_refused = 0;
    pthread_t thread;

    (void)argc;
    address = address_of("127.0.0.1", argv[4]);
    ports[0] = htons((uint16_t)atoi(argv[3]));
    ports[1] = htons((uint16_t)atoi(argv[4]));
    files[0] = sure("socket", socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    files[1] = tcp_socket(&address, SOCK_CLOEXEC);
    if (attempt == send_datagram)
        files[0] = sure("socket", socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    target_fd = sure("dup", fcntl(files[0], F_DUPFD_CLOEXEC, 0));
    sure("pthread_create",
         -pthread_create(&thread, NULL, attempt == dial_replaced ? replace_file : rewrite_address,
                         NULL));
    for (int i = 0; i < atoi(argv[2]); i++) {
        int error = attempt();

        n_connected += error == 0;
        n_refused += error == ECONNREFUSED;
        if (i % N_A_LINE == 0) {
            puts("more"); /* it is under way still */
            fflush(stdout);
        }
    }
    over = 1;
    sure("pthread_join", -pthread_join(thread, NULL));
    printf("connected: %s\nrefused: %s\n", n_connected > 0 ? "some" : "none",
           n_refused > 0 ? "some" : "none");
    return 0;
}
