/* Looking into another process: its memory, its files, its flags; and that a dead one is told apart. */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "check.h"

#define HOLE_FD 200

static const char secret[] = "what the program has in memory";

/* A child that has what this process has, and waits. */
static pid_t start(void)
{
    pid_t pid = fork();

    NEED(pid >= 0);
    if (pid > 0)
        return pid;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;)
        (void)pause();
}

static void end(pid_t pid)
{
    NEED(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
}

static void memory_is_read_whole_or_not_at_all(pid_t pid)
{
    const size_t page = 4096;
    char copy[sizeof(secret)] = "";
    char *pages;
    pid_t child;

    CHECK_EQ(mfd_target_read(pid, (uintptr_t)secret, copy, sizeof(copy)), 0);
    CHECK(memcmp(copy, secret, sizeof(copy)) == 0);
    CHECK_EQ(mfd_target_read(pid, 0, copy, 0), 0);
    CHECK_EQ(mfd_target_read(pid, 0, copy, 1), -EFAULT);
    CHECK_EQ(mfd_target_read(pid, UINT64_MAX - 8, copy, 16), -EFAULT);
    pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(pages != MAP_FAILED && munmap(pages + page, page) == 0);
    child = start();
    CHECK_EQ(mfd_target_read(child, (uintptr_t)pages + page - 8, copy, 8), 0);
    CHECK_EQ(mfd_target_read(child, (uintptr_t)pages + page - 8, copy, 9), -EFAULT);
    end(child);
    NEED(munmap(pages, page) == 0);
}

static void memory_is_written_whole_or_not_at_all(void)
{
    const size_t page = 4096;
    char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char copy[4] = "";
    pid_t child;

    NEED(pages != MAP_FAILED && munmap(pages + page, page) == 0);
    child = start();
    CHECK_EQ(mfd_target_write(child, (uintptr_t)pages, "told", 4), 0);
    CHECK_EQ(mfd_target_read(child, (uintptr_t)pages, copy, 4), 0);
    CHECK(memcmp(copy, "told", 4) == 0);
    CHECK_EQ(pages[0], 0); /* the child's alone */
    CHECK_EQ(mfd_target_write(child, 0, copy, 0), 0);
    CHECK_EQ(mfd_target_write(child, 0, copy, 1), -EFAULT);
    CHECK_EQ(mfd_target_write(child, (uintptr_t)pages + page - 2, copy, 4), -EFAULT);
    CHECK_EQ(mfd_target_write(child, (uintptr_t)secret, copy, 1), -EFAULT); /* read-only */
    end(child);
    NEED(munmap(pages, page) == 0);
}

/* As the kernel writes an address and its length: a length is not told of what could not be written. */
static void the_second_is_written_after_the_first_alone(void)
{
    const size_t page = 4096;
    char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const struct iovec local[] = {{.iov_base = (char[]){"told"}, .iov_len = 4},
                                  {.iov_base = (char[]){"size"}, .iov_len = 4}};
    const struct iovec good[] = {{.iov_base = pages, .iov_len = 4},
                                 {.iov_base = pages + 8, .iov_len = 4}};
    const struct iovec first_bad[] = {{.iov_base = pages + page, .iov_len = 4},
                                      {.iov_base = pages + 16, .iov_len = 4}};
    const struct iovec second_bad[] = {{.iov_base = pages + 24, .iov_len = 4},
                                       {.iov_base = pages + page, .iov_len = 4}};
    const struct iovec nothing[] = {{.iov_base = NULL},
                                    {.iov_base = (char[]){"only"}, .iov_len = 4}};
    const struct iovec nowhere[] = {{.iov_base = NULL}, {.iov_base = pages + 32, .iov_len = 4}};
    pid_t child;

    NEED(pages != MAP_FAILED && munmap(pages + page, page) == 0);
    child = start();
    CHECK_EQ(mfd_target_write_both(child, good, local), 0);
    CHECK(memcmp(pages, "told\0\0\0\0size", 12) == 0);
    CHECK_EQ(mfd_target_write_both(child, first_bad, local), -EFAULT);
    CHECK(pages[16] == 0);
    CHECK_EQ(mfd_target_write_both(child, second_bad, local), -EFAULT);
    CHECK(memcmp(pages + 24, "told", 4) == 0);
    CHECK_EQ(mfd_target_write_both(child, nowhere, nothing), 0);
    CHECK(memcmp(pages + 32, "only", 4) == 0);
    end(child);
    NEED(munmap(pages, page) == 0);
}

/* A namespace is told by its name alone. */
static void another_network_namespace_is_told_apart(pid_t pid)
{
    struct mfd_netns netns = {.own_fd = -1};

    NEED(mfd_netns_learn(&netns) == 0);
    CHECK(strncmp(netns.name, "net:[", 5) == 0 && strchr(netns.name, ']') != NULL);
    CHECK(mfd_target_in_netns(pid, &netns));
    netns.name[5] = netns.name[5] == '1' ? '2' : '1';
    CHECK(!mfd_target_in_netns(pid, &netns));
}

static void files_are_reopened_and_compared(pid_t pid, int fd, int other)
{
    int own_fd = -1;

    CHECK_EQ(mfd_target_open_fd(pid, fd, &own_fd), 0);
    CHECK(fcntl(own_fd, F_GETFD) == FD_CLOEXEC);
    CHECK_EQ(mfd_target_same_file(pid, fd, own_fd), 1);
    CHECK_EQ(mfd_target_same_file(pid, other, own_fd), 0);
    CHECK_EQ(mfd_target_same_file(pid, HOLE_FD, own_fd), -EBADF);
    (void)close(own_fd);
    own_fd = 77;
    CHECK_EQ(mfd_target_open_fd(pid, HOLE_FD, &own_fd), -EBADF);
    CHECK_EQ(mfd_target_open_fd(pid, -1, &own_fd), -EBADF);
    CHECK_EQ(own_fd, 77);
}

static void flags_are_those_of_the_number(pid_t pid, int fd, int other)
{
    unsigned long flags = 0;

    CHECK_EQ(mfd_target_fd_flags(pid, fd, &flags), 0);
    CHECK((flags & O_CLOEXEC) != 0);
    CHECK((flags & O_NONBLOCK) == 0);
    CHECK_EQ(mfd_target_fd_flags(pid, other, &flags), 0);
    CHECK((flags & O_CLOEXEC) == 0);
    CHECK((flags & O_NONBLOCK) != 0);
    CHECK_EQ(mfd_target_fd_flags(pid, HOLE_FD, &flags), -EBADF);
}

static void the_cgroup_is_our_own(pid_t pid)
{
    uint64_t own = 0;
    uint64_t theirs = 1;
    int error = mfd_target_cgroup(getpid(), &own);

    if (error == -ENOTTY) {
        check_skip("PIDFD_GET_INFO");
        return;
    }
    CHECK_EQ(error, 0);
    CHECK_EQ(mfd_target_cgroup(pid, &theirs), 0);
    CHECK(own != 0);
    CHECK_EQ(theirs, own);
}

static void a_process_that_is_gone_is_not_mistaken(pid_t gone, int fd)
{
    char copy[8];
    int own_fd = 77;
    uint64_t cgroup;

    CHECK_EQ(mfd_target_read(gone, (uintptr_t)secret, copy, sizeof(copy)), -ESRCH);
    CHECK_EQ(mfd_target_open_fd(gone, fd, &own_fd), -ESRCH); /* its pidfd was kept */
    CHECK_EQ(mfd_target_open_fd(gone, fd, &own_fd), -ESRCH); /* now it is not */
    CHECK_EQ(own_fd, 77);
    CHECK(mfd_target_cgroup(gone, &cgroup) < 0);
    CHECK_EQ(mfd_target_same_file(gone, fd, fd), -ESRCH);
}

static void nothing_kept_for_speed_stays(void)
{
    unsigned before = count_open_fds();
    pid_t pids[3];
    int own_fd;

    for (size_t i = 0; i < MFD_COUNT(pids); i++) {
        pids[i] = start();
        CHECK_EQ(mfd_target_open_fd(pids[i], STDERR_FILENO, &own_fd), 0);
        (void)close(own_fd);
    }
    CHECK(count_open_fds() > before);
    mfd_target_forget_all();
    CHECK_EQ(count_open_fds(), before);
    for (size_t i = 0; i < MFD_COUNT(pids); i++) {
        CHECK_EQ(mfd_target_open_fd(pids[i], STDERR_FILENO, &own_fd), 0); /* opened anew */
        (void)close(own_fd);
        end(pids[i]);
    }
    mfd_target_forget_all();
    CHECK_EQ(count_open_fds(), before);
}

int main(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int other = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    pid_t pid;

    NEED(fd >= 0 && other >= 0);
    pid = start();
    memory_is_read_whole_or_not_at_all(pid);
    memory_is_written_whole_or_not_at_all();
    the_second_is_written_after_the_first_alone();
    another_network_namespace_is_told_apart(pid);
    files_are_reopened_and_compared(pid, fd, other);
    flags_are_those_of_the_number(pid, fd, other);
    the_cgroup_is_our_own(pid);
    end(pid);
    a_process_that_is_gone_is_not_mistaken(pid, fd);
    mfd_target_forget_all();
    nothing_kept_for_speed_stays();
    return check_result();
}
