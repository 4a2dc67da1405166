/*
 * The CNI plugin: hands a runtime's request to the netagent agent and prints its answer.
 *
 * A runtime starts it for every verb of every container and most of its time is that start, so it is small and needs
 * nothing but libc. The agent judges the request. Here is only what has to work without it: VERSION, and DEL, which
 * runtimes expect to succeed and which is therefore queued as a file.
 *
 * A request is its length (u32, big-endian), the variables CNI_... as KEY=VALUE\0, an empty one, and standard input as
 * it came. An answer is two lengths (u32, u24) and the exit status (u8), then what is for standard output and for
 * standard error (of an IPAM plugin that the agent asked).
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* What a package may choose; the agent has the paths too (netagent/api/cni_queue.py). */
#ifndef DEFAULT_SOCKET
#define DEFAULT_SOCKET "/run/netagent/cni.sock"
#endif
#ifndef DEFAULT_QUEUE /* where no agent has told, in a link beside its socket, which one is its own */
#define DEFAULT_QUEUE "/var/lib/netagent/cni-queue"
#endif
#ifndef CONNECT_S
#define CONNECT_S 5
#endif
#ifndef ANSWER_S
#define ANSWER_S 120
#endif

enum {
    LENGTH = 4,
    HEAD = 8,
    CHUNK = 1 << 16,
    REQUEST_LIMIT = 16 << 20,
    ANSWER_LIMIT = 32 << 20, /* a result repeats prevResult and adds to it */
    QUEUE_LIMIT = 256,
    LOCK_S = 10,
    PAUSE_MS = 20,
};

static const char *const SUPPORTED[] = {"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"};
enum { VERSIONS = sizeof SUPPORTED / sizeof *SUPPORTED };

struct bytes {
    char *data;
    size_t size, room;
};

struct call {
    const char *command;  /* CNI_COMMAND */
    const char *socket;   /* the agent's */
    struct bytes request; /* with its length before it */
    size_t configuration; /* where in the request standard input begins */
};

struct answer {
    struct bytes whole; /* with its head */
    size_t output, complaint;
    int status;
};

enum outcome { ANSWERED, NOT_RUNNING, ENDED_EARLY };

static void *or_end(void *memory)
{
    if (!memory) {
        puts("{\"cniVersion\":\"1.1.0\",\"code\":11,\"msg\":\"the netagent plugin has no memory\"}");
        exit(1);
    }
    return memory;
}

/* Every size is bounded by a limit of ours or of exec(), so no sum overflows. */
static void make_room(struct bytes *bytes, size_t size)
{
    if (bytes->room - bytes->size >= size)
        return;
    bytes->room = 2 * (bytes->size + size);
    bytes->data = or_end(realloc(bytes->data, bytes->room));
}

static void append(struct bytes *bytes, const void *data, size_t size)
{
    make_room(bytes, size);
    memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
}

static bool write_all(int descriptor, const char *data, size_t size)
{
    while (size) {
        ssize_t done = write(descriptor, data, size);
        if (done < 0 && errno != EINTR)
            return false;
        data += done < 0 ? 0 : done;
        size -= done < 0 ? 0 : (size_t)done;
    }
    return true;
}

static void pause_shortly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = PAUSE_MS * 1000000L}, NULL);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* Return what follows blanks and the letter, or NULL. */
static const char *after(const char *at, const char *end, char letter)
{
    while (at && at < end && memchr(" \t\n\r\v\f", *at, 6))
        at++;
    return at && at < end && *at == letter ? at + 1 : NULL;
}

/* Return the cniVersion that a configuration names if we know it, else the newest. */
static const char *version_in(const char *text, size_t size)
{
    static const char key[] = "\"cniVersion\"";
    const char *end = size ? text + size : NULL;
    const char *at = size ? memmem(text, size, key, sizeof key - 1) : NULL;
    at = after(after(at ? at + sizeof key - 1 : NULL, end, ':'), end, '"');
    for (int i = 0; at && i < VERSIONS; i++) {
        size_t length = strlen(SUPPORTED[i]);
        if ((size_t)(end - at) > length && !memcmp(at, SUPPORTED[i], length) && at[length] == '"')
            return SUPPORTED[i];
    }
    return SUPPORTED[VERSIONS - 1];
}

/* Print a CNI error and end with status 1; the kernel closes what is open. */
static _Noreturn __attribute__((format(printf, 3, 4))) void refuse(const struct call *call, int code,
                                                                   const char *format, ...)
{
    const struct bytes *request = &call->request;
    const char *version = version_in(request->data + call->configuration, request->size - call->configuration);
    char *message = NULL;
    va_list values;
    va_start(values, format);
    or_end(vasprintf(&message, format, values) < 0 ? NULL : message);
    va_end(values);
    printf("{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":\"", version, code);
    /* JSON's escapes for the two that need one; what else a path may hold is not worth more. */
    for (const char *letter = message; *letter; letter++)
        printf("%s%c", strchr("\"\\", *letter) ? "\\" : "", *letter < ' ' || *letter > '~' ? '?' : *letter);
    puts("\"}");
    free(message);
    exit(1);
}

/* Of a name that stands twice the first counts, as for getenv(). */
static bool is_first(char *const *variable, size_t name)
{
    for (char **other = environ; other < variable; other++)
        if (!strncmp(*other, *variable, name + 1))
            return false;
    return true;
}

/* Put the variables and standard input together; what is too long is read only as far as is needed to refuse it. */
static void read_request(struct call *call)
{
    struct bytes *request = &call->request;
    append(request, "\0\0\0", LENGTH);
    for (char **variable = environ; *variable; variable++) {
        size_t name = strcspn(*variable, "=");
        if (!strncmp(*variable, "CNI_", 4) && (*variable)[name] && is_first(variable, name))
            append(request, *variable, strlen(*variable) + 1);
    }
    append(request, "", 1);
    call->configuration = request->size;
    while (request->size - LENGTH <= REQUEST_LIMIT) {
        make_room(request, CHUNK);
        ssize_t part = read(STDIN_FILENO, request->data + request->size, request->room - request->size);
        if (!part)
            break;
        if (part < 0 && errno != EINTR)
            refuse(call, 5, "cannot read the network configuration from stdin: %s", strerror(errno));
        request->size += part < 0 ? 0 : (size_t)part;
    }
    size_t size = request->size - LENGTH;
    if (size > REQUEST_LIMIT)
        refuse(call, 6, "the network configuration is larger than 16 MiB");
    for (int i = 0; i < LENGTH; i++)
        request->data[i] = (char)(size >> 8 * (LENGTH - 1 - i) & 0xff);
}

/* Return a connection, or -1 where nobody has listened for so many seconds. */
static int connect_to_agent(const struct call *call, int patience_s)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(call->socket);
    if (length >= sizeof address.sun_path)
        refuse(call, 4, "NETAGENT_CNI_SOCKET is too long for the path of a socket: %s", call->socket);
    memcpy(address.sun_path, call->socket, length);
    for (int pauses = patience_s * 1000 / PAUSE_MS; pauses >= 0; pauses--) {
        int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        /* It bounds the wait for a place among many that connect at once. */
        struct timeval limit = {.tv_sec = CONNECT_S};
        if (connection < 0 || setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit))
            refuse(call, 11, "cannot make a socket to connect to the netagent agent: %s", strerror(errno));
        int failed;
        do
            failed = connect(connection, (struct sockaddr *)&address, sizeof address) ? errno : 0;
        while (failed == EINTR);
        if (!failed)
            return connection;
        close(connection);
        if (failed == EAGAIN)
            refuse(call, 11, "the netagent agent at %s is too busy to take another request", call->socket);
        if (failed == EACCES || failed == EPERM)
            refuse(call, 5, "no permission to connect to the netagent agent at %s; run as root", call->socket);
        if (pauses)
            pause_shortly();
    }
    return -1;
}

/* Wait until the connection is ready or has ended. The time is that of the whole answer: it ends a trickle too. */
static void await(const struct call *call, int connection, short event, int64_t deadline_ms)
{
    struct pollfd waited = {.fd = connection, .events = event};
    int64_t left_ms = deadline_ms - now_ms();
    while (left_ms > 0 && poll(&waited, 1, (int)left_ms) <= 0)
        left_ms = deadline_ms - now_ms();
    if (left_ms <= 0)
        refuse(call, 11, "the netagent agent gave no answer within %d s", ANSWER_S);
}

static bool send_request(const struct call *call, int connection, int64_t deadline_ms)
{
    for (size_t at = 0; at < call->request.size;) {
        await(call, connection, POLLOUT, deadline_ms);
        ssize_t sent = send(connection, call->request.data + at, call->request.size - at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return false;
        at += sent < 0 ? 0 : (size_t)sent;
    }
    return true;
}

/* Read so many bytes. Room is made for what comes, not for what was announced. */
static bool receive(const struct call *call, int connection, struct bytes *into, size_t left, int64_t deadline_ms)
{
    while (left) {
        size_t part = left < CHUNK ? left : CHUNK;
        make_room(into, part);
        await(call, connection, POLLIN, deadline_ms);
        ssize_t got = recv(connection, into->data + into->size, part, MSG_DONTWAIT);
        if (!got || (got < 0 && errno != EAGAIN))
            return false;
        into->size += got < 0 ? 0 : (size_t)got;
        left -= got < 0 ? 0 : (size_t)got;
    }
    return true;
}

static bool receive_answer(const struct call *call, int connection, struct answer *answer, int64_t deadline_ms)
{
    answer->whole.size = 0;
    if (!receive(call, connection, &answer->whole, HEAD, deadline_ms))
        return false;
    const unsigned char *head = (const unsigned char *)answer->whole.data;
    answer->output = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
    answer->complaint = (size_t)head[4] << 16 | (size_t)head[5] << 8 | head[6];
    answer->status = head[7];
    if (answer->output > ANSWER_LIMIT)
        refuse(call, 199, "the answer of the netagent agent is larger than 32 MiB");
    return receive(call, connection, &answer->whole, answer->output + answer->complaint, deadline_ms);
}

/* Get the agent's answer, trying to reach it for so many seconds. */
static enum outcome ask(const struct call *call, int patience_s, struct answer *answer)
{
    int connection = connect_to_agent(call, patience_s);
    if (connection < 0)
        return NOT_RUNNING;
    int64_t deadline_ms = now_ms() + ANSWER_S * 1000;
    bool complete = send_request(call, connection, deadline_ms) && receive_answer(call, connection, answer, deadline_ms);
    close(connection);
    return complete ? ANSWERED : ENDED_EARLY;
}

/* Return the exit status. A complaint that nobody reads takes nothing from the answer. */
static int deliver(const struct answer *answer)
{
    const char *output = answer->whole.data + HEAD;
    (void)write_all(STDERR_FILENO, output + answer->output, answer->complaint);
    /* Where nobody reads the answer, the runtime will ask for DEL. */
    return write_all(STDOUT_FILENO, output, answer->output) ? answer->status : 1;
}

/* Return the path of what is beside another one, for the caller to free. */
static char *beside(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    char *text = NULL;
    int size = asprintf(&text, "%.*s%s", slash ? (int)(slash + 1 - path) : 0, path, name);
    return or_end(size < 0 ? NULL : text);
}

/* Return the path of the queue, for the caller to free. */
static char *queue_path(const struct call *call)
{
    const char *told = getenv("NETAGENT_CNI_QUEUE");
    if (told && *told)
        return or_end(strdup(told));
    struct stat status;
    char *linked = beside(call->socket, "cni-queue");
    if (!lstat(linked, &status))
        return linked;
    free(linked);
    return or_end(strdup(DEFAULT_QUEUE));
}

static _Noreturn void refuse_to_queue(const struct call *call, const char *path)
{
    /* Runtimes take "no such file or directory" for success (containerd/go-cni). */
    const char *reason = errno == ENOENT ? "a directory is missing" : strerror(errno);
    refuse(call, 11, "the netagent agent is away and DEL cannot be queued in %s: %s", path, reason);
}

/* Return the queue's directory, or -1; it and the directory above are made if need be. */
static int open_queue(const char *path)
{
    char *parent = beside(path, "");
    bool made = (!*parent || !mkdir(parent, 0700) || errno == EEXIST) && (!mkdir(path, 0700) || errno == EEXIST);
    free(parent);
    return made ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
}

/* Return a descriptor that shares the queue's lock, or -1. */
static int lock_queue(const struct call *call, int queue)
{
    int lock = openat(queue, ".lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    for (int pauses = LOCK_S * 1000 / PAUSE_MS; lock >= 0 && flock(lock, LOCK_SH | LOCK_NB); pauses--) {
        if (errno != EWOULDBLOCK)
            return -1;
        if (!pauses)
            refuse(call, 11, "the netagent agent is starting; try again");
        pause_shortly();
    }
    return lock;
}

static bool has_place(int queue)
{
    DIR *directory = fdopendir(openat(queue, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int waiting = 0;
    struct dirent *entry;
    while (directory && (entry = readdir(directory)))
        waiting += entry->d_name[0] != '.';
    if (directory)
        closedir(directory);
    return waiting < QUEUE_LIMIT;
}

/* Store the request as a file that survives a crash of this machine. */
static bool store(const struct bytes *request, int queue)
{
    unsigned char random[16];
    char aside[1 + 2 * sizeof random + 1] = ".";
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return false;
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(aside + 1 + 2 * i, 3, "%02x", random[i]);
    int file = openat(queue, aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0)
        return false;
    bool stored = write_all(file, request->data + LENGTH, request->size - LENGTH) && !fsync(file) &&
                  !renameat(queue, aside, queue, aside + 1);
    int failed = errno;
    if (!stored)
        unlinkat(queue, aside, 0);
    close(file);
    errno = failed;
    return stored && !fsync(queue);
}

/* Have an attachment deleted at the agent's next start, or by one that has started meanwhile. */
static int delete_later(const struct call *call, struct answer *answer)
{
    char *path = queue_path(call);
    int queue = open_queue(path);
    int lock = queue < 0 ? -1 : lock_queue(call, queue);
    if (lock < 0)
        refuse_to_queue(call, path);
    /* An agent that starts holds the lock until it listens, so a file written under it is never too late. */
    bool asked = ask(call, 0, answer) == ANSWERED;
    if (!asked && !has_place(queue))
        refuse(call, 11, "the netagent agent is away and %d deletions wait for it already", QUEUE_LIMIT);
    if (!asked && !store(&call->request, queue))
        refuse_to_queue(call, path);
    close(lock);
    close(queue);
    free(path);
    return asked ? deliver(answer) : 0;
}

static int perform(const struct call *call, struct answer *answer)
{
    bool deletes = !strcmp(call->command, "DEL"), is_status = !strcmp(call->command, "STATUS");
    /* Runtimes ask for STATUS every few seconds, and an agent that is away is the answer. */
    enum outcome outcome = ask(call, deletes || is_status ? 0 : CONNECT_S, answer);
    if (outcome == ANSWERED)
        return deliver(answer);
    if (deletes) {
        const char *container = getenv("CNI_CONTAINERID"), *interface = getenv("CNI_IFNAME");
        bool unnamed = !container || !*container, without_interface = !interface || !*interface;
        if (unnamed || without_interface)
            refuse(call, 4, "required environment variables are missing: %s%s%s", unnamed ? "CNI_CONTAINERID" : "",
                   unnamed && without_interface ? ", " : "", without_interface ? "CNI_IFNAME" : "");
        return delete_later(call, answer);
    }
    if (outcome == ENDED_EARLY)
        refuse(call, is_status ? 50 : 5, "the netagent agent ended before it answered");
    refuse(call, is_status ? 50 : 11, "the netagent agent is not running at %s; start it: systemctl start netagent",
           call->socket);
}

/* Answer with what standard input holds now or in a moment; a shell's may never end. */
static int print_versions(void)
{
    struct bytes input = {0};
    int there = 0;
    for (int tries = 5; tries && !ioctl(STDIN_FILENO, FIONREAD, &there) && !there; tries--)
        pause_shortly();
    if (there > 0) {
        make_room(&input, there < REQUEST_LIMIT ? (size_t)there : REQUEST_LIMIT);
        ssize_t got = read(STDIN_FILENO, input.data, input.room);
        input.size = got < 0 ? 0 : (size_t)got;
    }
    printf("{\"cniVersion\":\"%s\",\"supportedVersions\":[", version_in(input.data, input.size));
    for (int i = 0; i < VERSIONS; i++)
        printf("%s\"%s\"", i ? "," : "", SUPPORTED[i]);
    puts("]}");
    free(input.data);
    return fflush(stdout) ? 1 : 0;
}

static int print_about(void)
{
    fputs("netagent CNI plugin; runtimes call it with CNI_COMMAND set and a network configuration on stdin\n"
          "CNI protocol versions supported: ", stderr);
    for (int i = 0; i < VERSIONS; i++)
        fprintf(stderr, "%s%s", SUPPORTED[i], i + 1 < VERSIONS ? ", " : "\n");
    return 0;
}

/* A standard descriptor that is closed must not become the connection: put there what neither reads nor writes. */
static void occupy_closed_descriptors(void)
{
    int opened;
    do
        opened = open("/", O_PATH | O_CLOEXEC);
    while (opened >= 0 && opened <= STDERR_FILENO);
    close(opened);
}

int main(void)
{
    const char *command = getenv("CNI_COMMAND"), *told = getenv("NETAGENT_CNI_SOCKET");
    occupy_closed_descriptors();
    signal(SIGPIPE, SIG_IGN); /* a write that fails has a status to tell it by */
    if (!command || !*command)
        return print_about();
    if (!strcmp(command, "VERSION"))
        return print_versions();
    struct call call = {.command = command, .socket = told && *told ? told : DEFAULT_SOCKET};
    struct answer answer = {0};
    read_request(&call);
    int status = perform(&call, &answer);
    free(call.request.data);
    free(answer.whole.data);
    return status;
}
