// An "antivirus" of the tests' own: opens files and folders as they appear and holds them for a while.
//
//   scanner watch FOLDER [options]   everything that appears below FOLDER
//   scanner hold PATH... [options]   these paths, now; ends when the last is released
//
//   --access attributes|read|write|delete   what the handle may do (read)
//   --share none|r|rw|rwd                   what others may do meanwhile (rw: not delete, not rename)
//   --ms N|forever                          how long each is held (1000)
//   --only files|folders|both               (both)
//   --name TEXT                             only paths that contain TEXT
//   --stop-file PATH                        ends when PATH exists; so does the closing of a piped stdin
//   --seconds N                             ends after N seconds whatever happens (600)
//
// Prints "ready", "held PATH", "released PATH", and for hold "refused CODE PATH", a line at a time in UTF-8.
//
// Give it a file as stdout, or read it all the time: a full pipe (4 KiB) stops the scanner.
//
// One thread and one list: a hold is a handle and a due time, so thousands cost no thread each.
// Blind spot: the notice comes after the fact, so a file that lives for less than about a millisecond is never seen.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <wchar.h>
#include <windows.h>

#define NEVER UINT64_MAX
#define RETRY_MS 2
#define STOP_CHECK_MS 20

struct hold {
    wchar_t *path;
    HANDLE handle; // INVALID_HANDLE_VALUE: refused until now, tried again
    uint64_t due;  // when to release it
};

static struct hold *holds;
static size_t count, capacity;

static DWORD access = GENERIC_READ, share = FILE_SHARE_READ | FILE_SHARE_WRITE;
static uint64_t hold_ms = 1000, deadline;
static BOOL files = TRUE, folders = TRUE, waits_for_refused;
static const wchar_t *name, *stop_file;

static void say(const char *what, const wchar_t *path)
{
    static char line[4 * 32768];
    DWORD ignored;
    int n = snprintf(line, sizeof line, "%s", what);
    if (path) {
        line[n++] = ' ';
        n += WideCharToMultiByte(CP_UTF8, 0, path, -1, line + n, sizeof line - n - 1, NULL, NULL) - 1;
    }
    line[n++] = '\n';
    // In one call, so that no reader sees half a line.
    WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), line, n, &ignored, NULL);
}

static void fail(const char *what, const wchar_t *detail)
{
    fprintf(stderr, "scanner: %s: %ls (error %lu)\n", what, detail, GetLastError());
    exit(2);
}

static uint64_t now(void) { return GetTickCount64(); }

static BOOL wanted(const wchar_t *path, DWORD attributes)
{
    return (attributes & FILE_ATTRIBUTE_DIRECTORY ? folders : files) && (!name || wcsstr(path, name));
}

// Returns 0, or the code of a refusal.
static DWORD take(struct hold *hold)
{
    hold->handle = CreateFileW(hold->path, access, share, NULL, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, NULL);
    if (hold->handle == INVALID_HANDLE_VALUE)
        return GetLastError();
    hold->due = hold_ms == NEVER ? NEVER : now() + hold_ms;
    say("held", hold->path);
    return 0;
}

static void drop(size_t i)
{
    free(holds[i].path);
    holds[i] = holds[--count];
}

static void add(const wchar_t *path)
{
    for (size_t i = 0; i < count; i++)
        if (!wcscmp(holds[i].path, path))
            return;
    if (count == capacity)
        holds = realloc(holds, (capacity = capacity ? 2 * capacity : 256) * sizeof *holds);
    struct hold *hold = &holds[count++];
    hold->path = wcsdup(path);
    hold->due = NEVER;
    DWORD code = take(hold);
    // A writer that shares nothing yet is waited for, as a scanner does that looks at what was closed.
    if (!code || (waits_for_refused && code == ERROR_SHARING_VIOLATION))
        return;
    if (!waits_for_refused) {
        char line[64];
        snprintf(line, sizeof line, "refused %lu", code);
        say(line, path);
    }
    drop(count - 1);
}

static void appeared(const wchar_t *path);

static void appeared_below(const wchar_t *folder)
{
    wchar_t *path = malloc(32768 * sizeof *path);
    WIN32_FIND_DATAW entry;
    swprintf(path, 32768, L"%ls\\*", folder);
    HANDLE find = FindFirstFileW(path, &entry);
    if (find == INVALID_HANDLE_VALUE)
        return free(path);
    do {
        if (!wcscmp(entry.cFileName, L".") || !wcscmp(entry.cFileName, L".."))
            continue;
        swprintf(path, 32768, L"%ls\\%ls", folder, entry.cFileName);
        appeared(path);
    } while (FindNextFileW(find, &entry));
    FindClose(find);
    free(path);
}

static void appeared(const wchar_t *path)
{
    DWORD attributes = GetFileAttributesW(path);
    if (attributes == INVALID_FILE_ATTRIBUTES)
        return;
    if (wanted(path, attributes))
        add(path);
    // What came into a new folder before the system watched it is told by nobody.
    if (attributes & FILE_ATTRIBUTE_DIRECTORY)
        appeared_below(path);
}

// Releases what is due and tries the refused again; returns the milliseconds until the next call is worth it.
static DWORD tend(void)
{
    DWORD wait = STOP_CHECK_MS;
    uint64_t t = now();
    for (size_t i = count; i-- > 0;) {
        struct hold *hold = &holds[i];
        if (hold->handle == INVALID_HANDLE_VALUE) {
            DWORD code = take(hold);
            wait = RETRY_MS;
            if (code && code != ERROR_SHARING_VIOLATION)
                drop(i);
        } else if (hold->due <= t) {
            CloseHandle(hold->handle);
            say("released", hold->path);
            drop(i);
        } else if (hold->due - t < wait) {
            wait = (DWORD)(hold->due - t);
        }
    }
    return wait;
}

static BOOL stopped(void)
{
    static uint64_t next;
    if (now() < next)
        return FALSE;
    next = now() + STOP_CHECK_MS;
    HANDLE in = GetStdHandle(STD_INPUT_HANDLE);
    if (now() >= deadline || (stop_file && GetFileAttributesW(stop_file) != INVALID_FILE_ATTRIBUTES))
        return TRUE;
    return GetFileType(in) == FILE_TYPE_PIPE && !PeekNamedPipe(in, NULL, 0, NULL, NULL, NULL);
}

static void watch(const wchar_t *folder)
{
    static DWORD buffer[16384]; // the most that a network drive takes, and aligned as the call asks
    static wchar_t path[32768];
    OVERLAPPED overlapped = {.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL)};
    HANDLE handle = CreateFileW(folder, FILE_LIST_DIRECTORY, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
                                OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OVERLAPPED, NULL);
    if (handle == INVALID_HANDLE_VALUE)
        fail("cannot open", folder);
    waits_for_refused = TRUE;
    for (BOOL first = TRUE;; first = FALSE) {
        if (!ReadDirectoryChangesW(handle, buffer, sizeof buffer, TRUE,
                                   FILE_NOTIFY_CHANGE_FILE_NAME | FILE_NOTIFY_CHANGE_DIR_NAME, NULL, &overlapped, NULL))
            fail("cannot watch", folder);
        if (first)
            say("ready", NULL);
        while (WaitForSingleObject(overlapped.hEvent, tend()) == WAIT_TIMEOUT)
            if (stopped())
                return;
        DWORD size = 0;
        GetOverlappedResult(handle, &overlapped, &size, FALSE);
        if (!size) // more came than the buffer holds, and all of it is lost
            appeared_below(folder);
        for (char *at = (char *)buffer; size;) {
            FILE_NOTIFY_INFORMATION *change = (void *)at;
            if (change->Action == FILE_ACTION_ADDED || change->Action == FILE_ACTION_RENAMED_NEW_NAME) {
                swprintf(path, 32768, L"%ls\\%.*ls", folder, (int)(change->FileNameLength / 2), change->FileName);
                appeared(path);
            }
            if (!change->NextEntryOffset)
                break;
            at += change->NextEntryOffset;
        }
        if (stopped())
            return;
    }
}

// The word's place among the choices, or the end of the program.
static int choice(const wchar_t *word, const wchar_t *const *choices)
{
    for (int i = 0; choices[i]; i++)
        if (!wcscmp(word, choices[i]))
            return i;
    fail("not a choice", word);
    return 0;
}

int wmain(int argc, wchar_t **argv)
{
    static const wchar_t *const accesses[] = {L"attributes", L"read", L"write", L"delete", NULL};
    static const DWORD access_bits[] = {FILE_READ_ATTRIBUTES, GENERIC_READ, GENERIC_READ | GENERIC_WRITE, DELETE};
    static const wchar_t *const shares[] = {L"none", L"r", L"rw", L"rwd", NULL};
    static const DWORD share_bits[] = {0, 1, 3, 7};
    static const wchar_t *const onlys[] = {L"files", L"folders", L"both", NULL};
    static const wchar_t *const options[] = {L"--access", L"--share",     L"--ms",      L"--only",
                                             L"--name",   L"--stop-file", L"--seconds", NULL};
    static const wchar_t *const modes[] = {L"watch", L"hold", NULL};
    wchar_t **paths = argv + 2;
    int path_count = 0;
    deadline = now() + 600 * 1000;
    if (argc < 3)
        fail("usage", L"scanner watch FOLDER | hold PATH... [options]");
    for (int i = 2; i < argc; i++) {
        if (wcsncmp(argv[i], L"--", 2)) {
            paths[path_count++] = argv[i];
            continue;
        }
        int option = choice(argv[i], options);
        if (++i == argc)
            fail("no value", argv[i - 1]);
        const wchar_t *value = argv[i];
        switch (option) {
        case 0: access = access_bits[choice(value, accesses)]; break;
        case 1: share = share_bits[choice(value, shares)]; break;
        case 2: hold_ms = wcscmp(value, L"forever") ? wcstoull(value, NULL, 10) : NEVER; break;
        case 3: files = choice(value, onlys) != 1, folders = choice(value, onlys) != 0; break;
        case 4: name = value; break;
        case 5: stop_file = value; break;
        case 6: deadline = now() + 1000 * wcstoull(value, NULL, 10); break;
        }
    }
    if (!path_count)
        fail("usage", L"no path");
    if (choice(argv[1], modes) == 0) {
        watch(paths[0]);
    } else {
        for (int i = 0; i < path_count; i++)
            add(paths[i]);
        if (!count)
            return 1;
        while (count && !stopped())
            Sleep(tend());
    }
    // The system closes what is still held.
    return 0;
}
