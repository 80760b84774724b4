/* dial.c - dial HOST PORT [v6only|mapped]: connect once, blocking, and print the greeting
 *
 * "mapped" and "v6only" make the socket AF_INET6 whatever HOST is, with V6ONLY off or on. */
#include "say.h"

static struct address map(const struct address *address)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)&address->storage;
    struct address result = address_of("::ffff:0.0.0.0", "0");
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&result.storage;

    memcpy(&in6->sin6_addr.s6_addr[12], &in->sin_addr, sizeof(in->sin_addr));
    in6->sin6_port = in->sin_port;
    return result;
}

int main(int argc, char **argv)
{
    struct address address = address_of(argv[1], argv[2]);
    const char *mode = argc > 3 ? argv[3] : "";
    int v6only = strcmp(mode, "v6only") == 0;
    int fd, result;

    if (*mode != '\0' && address.family == AF_INET)
        address = map(&address);
    fd = tcp_socket(&address, 0);
    if (*mode != '\0')
        sure("V6ONLY", setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only)));
    result = dial(fd, &address);
    say(result, "connect");
    if (result == 0)
        say_rest(fd, "greeting");
    return result == 0 ? 0 : 1;
}
