// python.exe of the lab: the official one is not in any wheel, but all that it does is this.
#include <stdio.h>
#include <windows.h>

int wmain(int argc, wchar_t **argv)
{
    HMODULE dll = LoadLibraryW(L"python311.dll");
    int (*py_main)(int, wchar_t **) = dll ? (void *)GetProcAddress(dll, "Py_Main") : NULL;
    if (!py_main) {
        fprintf(stderr, "python.exe: cannot load python311.dll (error %lu)\n", GetLastError());
        return 3;
    }
    return py_main(argc, argv);
}
