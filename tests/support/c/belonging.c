/* belonging.c - belonging REPORT LISTEN_PORT TCP_HOST TCP_PORT UDP_HOST UDP_PORT UDP_OWN_PORT UNIX UID
 *
 * Has a socket of each kind, says in REPORT (JSON) what each is, and waits to be killed:
 *   listening    of a port that nobody else wanted      handed       of LISTEN_PORT
 *   connected    by TCP_HOST:TCP_PORT to `handed`       accepted     from there
 *   server       bound to UDP_OWN_PORT                  sender       unconnected, to UDP_HOST:UDP_PORT
 *   associated   connected there                        unix         HOST:PORT that leads to a unix socket,
 *                                                                    its path, or "-": none
 * UDP_HOST:UDP_PORT leads to `server`. UID: whom to become first, or "-". */
#include <sys/stat.h>
#include <sys/un.h>

#include "say.h"

#define OWN "127.0.0.1"
#define KINDS_MAX 8

static struct kind {
    const char *name;
    int fd;
} kinds[KINDS_MAX];
static unsigned n_kinds;

static int note(const char *name, int fd)
{
    kinds[n_kinds++] = (struct kind){name, sure(name, fd)};
    return fd;
}

static uint64_t wide_option(int fd, int name)
{
    uint64_t value = 0;
    socklen_t size = sizeof(value);

    sure("getsockopt", getsockopt(fd, SOL_SOCKET, name, &value, &size));
    return value;
}

static int listen_at(const char *port)
{
    struct address address = address_of(OWN, port);
    int fd = tcp_socket(&address, 0);
    const int on = 1; /* as daemons do */

    sure("SO_REUSEADDR", setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)));
    sure("bind", bind(fd, sockaddr_of(&address), address.length));
    sure("listen", listen(fd, 8));
    return fd;
}

static int connect_to(const char *host, const char *port)
{
    struct address address = address_of(host, port);
    int fd = tcp_socket(&address, 0);

    sure("connect", dial(fd, &address));
    return fd;
}

static void exchange_datagrams(const char *host, const char *port, const char *own_port)
{
    struct address own = address_of(OWN, own_port);
    struct address to = address_of(host, port);
    int server = note("server", socket(AF_INET, SOCK_DGRAM, 0));
    int sender = note("sender", socket(AF_INET, SOCK_DGRAM, 0));
    int associated = note("associated", socket(AF_INET, SOCK_DGRAM, 0));
    char text[8];

    sure("bind", bind(server, sockaddr_of(&own), own.length));
    sure("sendto", (int)sendto(sender, "1", 1, 0, sockaddr_of(&to), to.length));
    sure("recv", (int)recv(server, text, sizeof(text), 0));
    sure("connect", dial(associated, &to));
    sure("send", (int)send(associated, "2", 1, 0));
    sure("recv", (int)recv(server, text, sizeof(text), 0));
}

/* @way: HOST:PORT or a path */
static int connect_unix(char *way)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    char *colon = strchr(way, ':');
    int fd;

    if (colon != NULL) {
        *colon = '\0';
        return connect_to(way, colon + 1);
    }
    fd = sure("socket", socket(AF_UNIX, SOCK_STREAM, 0));
    strncpy(name.sun_path, way, sizeof(name.sun_path) - 1);
    sure("connect", connect(fd, (const struct sockaddr *)&name, sizeof(name)));
    return fd;
}

static void report(const char *file)
{
    char unfinished[4096];
    FILE *out;

    snprintf(unfinished, sizeof(unfinished), "%s.new", file);
    out = fopen(unfinished, "w");
    sure(unfinished, out == NULL ? -1 : 0);
    for (unsigned i = 0; i < n_kinds; i++) {
        struct stat status;

        sure("fstat", fstat(kinds[i].fd, &status));
        fprintf(out, "%s\"%s\": {\"netns\": %llu, \"inode\": %llu, \"uid\": %u}",
                i == 0 ? "{" : ", ", kinds[i].name,
                (unsigned long long)wide_option(kinds[i].fd, SO_NETNS_COOKIE),
                (unsigned long long)status.st_ino, status.st_uid);
    }
    fputs("}\n", out);
    sure("close", fclose(out));
    sure("rename", rename(unfinished, file));
}

int main(int argc, char **argv)
{
    int handed;

    if (argc != 10)
        return SET_UP_FAILED;
    if (strcmp(argv[9], "-") != 0)
        sure("setuid", setuid((uid_t)atoi(argv[9])));
    note("listening", listen_at("0"));
    handed = note("handed", listen_at(argv[2]));
    note("connected", connect_to(argv[3], argv[4]));
    note("accepted", accept(handed, NULL, NULL));
    exchange_datagrams(argv[5], argv[6], argv[7]);
    if (strcmp(argv[8], "-") != 0)
        note("unix", connect_unix(argv[8]));
    report(argv[1]);
    for (;;)
        pause();
}
