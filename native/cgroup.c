/* cgroup.c - is a program in the agent's cgroup?
 *
 * Theory of operation: a socket belongs for ever to the cgroup (version 2) of the task that makes it, and the
 * agent is in its service's. A program may put itself into a cgroup below: then it makes its sockets itself
 * (sockets.c). Where a program is, its pidfd tells, and on older kernels /proc/PID/cgroup, which takes some
 * microseconds; so it is only asked when the agent's cgroup has others below it, which the link count of its
 * directory tells at once.
 *
 * The supervisor makes the service's cgroup, marks it, and removes it. If it is killed, the agent is the last who can:
 * when all else is gone it moves to the next cgroup above without the mark that takes it, and removes what has it.
 *
 * Limits: a privileged program that has moved itself to a cgroup elsewhere is not noticed where there is none
 * below.
 * Source: linux/pidfd.h, PIDFD_GET_INFO (Linux 6.13); cgroups(7), xattr(7), proc(5) /proc/PID/cgroup and mountinfo;
 * fs/kernfs/dir.c (nlink: two, and one a child). */
#include <fcntl.h>
#include <ftw.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "meshfd.h"

#define LINKS_ALONE 2
#define PATH_ROOM 4096 /* PATH_MAX */
#define DIRECTORY_ROOM (2 * PATH_ROOM)
#define MARK "user.meshfd" /* MARK of meshfd/cgroups.py */
#define WALK_FDS 8

/* The path in the line of version 2, "0::/mesh.slice/shop". Return: 0; -ENOENT. */
static int read_path(pid_t pid, char ret_path[PATH_ROOM])
{
    char name[32];
    char line[PATH_ROOM];
    char *end;
    int error = -ENOENT;
    FILE *file;

    (void)snprintf(name, sizeof(name), "/proc/%d/cgroup", pid);
    file = fopen(name, "re");
    if (file == NULL)
        return -ENOENT;
    while (error < 0 && fgets(line, sizeof(line), file) != NULL) {
        end = strchr(line, '\n');
        if (strncmp(line, "0::", 3) != 0 || end == NULL)
            continue;
        *end = '\0';
        memcpy(ret_path, line + 3, (size_t)(end - line) - 2);
        error = 0;
    }
    (void)fclose(file);
    return error;
}

/* Where cgroup v2 is mounted, whole. @ret_directory: the directory of this cgroup, whose last part is @cgroup
 * Return: an fd of it; -ENOENT. */
static int open_directory(const char *cgroup, char ret_directory[DIRECTORY_ROOM])
{
    FILE *mounts = setmntent("/proc/self/mounts", "re");
    struct mntent *one;
    int fd = -ENOENT;

    if (mounts == NULL)
        return -ENOENT;
    while (fd < 0 && (one = getmntent(mounts)) != NULL) {
        if (strcmp(one->mnt_type, "cgroup2") != 0)
            continue;
        (void)snprintf(ret_directory, DIRECTORY_ROOM, "%s%s", one->mnt_dir, cgroup);
        fd = open(ret_directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    }
    (void)endmntent(mounts);
    return fd < 0 ? -ENOENT : fd;
}

/* mfd_cgroup_learn - we are where we stay; where there is no cgroup v2, all are in the same */
void mfd_cgroup_learn(struct mfd_cgroup *cgroup)
{
    char directory[DIRECTORY_ROOM];
    char path[PATH_ROOM];

    mfd_close_at(&cgroup->fd);
    free(cgroup->path);
    cgroup->path = NULL;
    if (mfd_target_cgroup(getpid(), &cgroup->id) < 0)
        cgroup->id = 0;
    mfd_target_forget_all(); /* we are no target */
    if (read_path(getpid(), path) < 0)
        return;
    cgroup->path = strdup(path);
    if (cgroup->path != NULL)
        cgroup->fd = open_directory(path, directory);
}

/* mfd_cgroup_open_of - the directory of a program's cgroup
 * Return: an fd, O_PATH; -ENOENT. */
int mfd_cgroup_open_of(pid_t pid)
{
    char directory[DIRECTORY_ROOM];
    char path[PATH_ROOM];

    return read_path(pid, path) < 0 ? -ENOENT : open_directory(path, directory);
}

/* mfd_cgroup_has - does what we make belong where this program's own would? */
bool mfd_cgroup_has(const struct mfd_cgroup *cgroup, pid_t pid)
{
    char path[PATH_ROOM];
    struct stat status;
    uint64_t id;

    if (cgroup->fd < 0 || (fstat(cgroup->fd, &status) == 0 && status.st_nlink <= LINKS_ALONE))
        return true;
    if (cgroup->id != 0 && mfd_target_cgroup(pid, &id) == 0)
        return id == cgroup->id;
    return read_path(pid, path) == 0 && strcmp(path, cgroup->path) == 0;
}

/* --- the end ---------------------------------------------------------------------------------------------- */

static bool is_marked(const char *directory)
{
    return getxattr(directory, MARK, NULL, 0) >= 0;
}

/* Make a path that of the directory above, but no shorter than this. Return: was it longer? */
static bool go_up(char *directory, size_t shortest)
{
    char *last = strrchr(directory, '/');

    if (last == NULL || (size_t)(last - directory) < shortest)
        return false;
    *last = '\0';
    return true;
}

/* Be in this cgroup. Return: 0 or -errno: its parent may take us. */
static int move_to(const char *directory)
{
    static char path[DIRECTORY_ROOM + 16];
    MFD_CLOSE int fd = -1;

    (void)snprintf(path, sizeof(path), "%s/cgroup.procs", directory);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd < 0 || write(fd, "0", 1) < 0 ? -errno : 0;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status;
    (void)where;
    if (type == FTW_DP)
        (void)rmdir(path);
    return 0;
}

/* mfd_cgroup_remove_own - the supervisor is gone and we are the last: remove what it has made, as far as nobody is in
 * it */
void mfd_cgroup_remove_own(void)
{
    static char directory[DIRECTORY_ROOM];
    static char above[DIRECTORY_ROOM];
    char path[PATH_ROOM];
    MFD_CLOSE int fd = -1;
    size_t mount_size;

    (void)setfsuid(geteuid()); /* not a program's */
    (void)setfsgid(getegid());
    if (read_path(getpid(), path) == 0)
        fd = open_directory(path, directory);
    if (fd < 0 || !is_marked(directory))
        return;
    mount_size = strlen(directory) - strlen(path);
    memcpy(above, directory, sizeof(above));
    while (go_up(above, mount_size) && (is_marked(above) || move_to(above) < 0))
        continue;
    (void)nftw(directory, remove_one, WALK_FDS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    while (go_up(directory, mount_size) && is_marked(directory))
        (void)rmdir(directory);
}
